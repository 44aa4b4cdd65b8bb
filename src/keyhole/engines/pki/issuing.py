"""Certificates by roles: what is asked for, held against the role, signed by the issuer, kept."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_switch, parse_text
from keyhole.core.lease import parse_duration
from keyhole.core.request import Reply
from keyhole.core.times import format_time, parse_time
from keyhole.core.value import Secret
from keyhole.crypto import pki
from keyhole.engines import Call, Context
from keyhole.engines.pki import names, roles, store

_FORMATS = ("pem", "der", "pem_bundle")
_FLAGS = (
    ("server_flag", "serverauth"),
    ("client_flag", "clientauth"),
    ("code_signing_flag", "codesigning"),
    ("email_protection_flag", "emailprotection"),
)
_LATEST = 253402300799  # 9999-12-31T23:59:59Z, the last moment that a certificate can name


@dataclass(slots=True)
class Wish:
    """A certificate that is asked for.

    Attributes:
        data: of the request.
        role: settings that hold for it.
        issuer: who is to sign.
        key: of the issuer.
        warnings: for who asked.
    """

    context: Context
    data: Mapping[str, Any]
    role: Mapping[str, Any]
    issuer: store.Issuer
    key: store.Key
    settings: store.Settings
    issuers: Mapping[str, store.Issuer]
    warnings: list[str] = field(default_factory=list)

    @property
    def signer(self) -> pki.Issuer:
        """The issuer as it signs."""
        return pki.Issuer(self.key.der, self.issuer.certificate, self.role["signature_bits"], self.role["use_pss"])


async def make_wish(context: Context, call: Call, role: Mapping[str, Any], *, chosen: str = "") -> Wish:
    """What is asked for, with who is to sign it: the issuer in the path, else the chosen one, else that of the role.

    Raises:
        InvalidRequest: there is no such issuer, or it cannot sign certificates.
    """
    ref = call.params.get("issuer") or chosen or role["issuer_ref"]
    settings = await store.load_settings(context)
    issuers = await store.load_issuers(context)
    if ref == store.DEFAULT and not settings.issuer:
        raise InvalidRequest("no default issuer currently configured", "generate a root, or set a signed certificate")
    issuer = store.find(issuers, settings.issuer if ref == store.DEFAULT else ref, "issuer")
    if not issuer.key:
        raise InvalidRequest("unable to sign: the key of this issuer is not here", "choose another issuer")
    if "issuing-certificates" not in issuer.usage:
        raise InvalidRequest("this issuer is not used for certificates", "see its usage")
    if issuer.revoked:
        raise InvalidRequest("this issuer was revoked", "choose another issuer")
    key = await store.find_key(context, issuer.key)
    return Wish(context, call.data, role, issuer, key, settings, issuers)


def life(wish: Wish, *, by_default: str = "") -> tuple[int, int]:
    """When the certificate begins and ends, in seconds since the epoch.

    Args:
        wish: what is asked for.
        by_default: what happens when it would outlive its issuer, in place of what the issuer says.

    Raises:
        InvalidRequest: it would outlive its issuer, and that is not allowed.
    """
    now = int(wish.context.now)
    end = end_of(wish, now)
    limit = pki.read_certificate(wish.issuer.certificate).before
    if limit <= now:
        raise InvalidRequest("the certificate of the issuer has expired", "renew it")
    behaviour = by_default or wish.issuer.not_after
    if end > limit and behaviour != "permit":
        if behaviour != "truncate":
            raise InvalidRequest(
                f"cannot satisfy request, as TTL would result in notAfter of {format_time(end)} that is beyond the "
                f"expiration of the CA certificate at {format_time(limit)}",
                "ask for a shorter ttl",
            )
        wish.warnings.append(f"the certificate ends with that of its issuer, at {format_time(limit)}")
        end = limit
    return now - wish.role["not_before_duration"], end


def end_of(wish: Wish, now: int) -> int:
    """When the certificate ends, whatever its issuer's own end is."""
    role, data, context = wish.role, wish.data, wish.context
    if role["not_after"]:
        return _moment(role["not_after"], now)
    most = role["max_ttl"] or context.max_ttl
    if text := parse_text(data.get("not_after"), "not_after"):
        if parse_text(str(data.get("ttl") or ""), "ttl"):
            raise InvalidRequest("either ttl or not_after should be provided. Both should not be provided")
        wanted = _moment(text, now) - now
    else:
        wanted = parse_duration(data.get("ttl") or 0) or role["ttl"] or context.default_ttl
    if wanted > most:
        wish.warnings.append(f'TTL "{wanted}s" is longer than permitted maxTTL "{most}s", so maxTTL is being used')
        wanted = most
    return now + wanted


def _moment(text: str, now: int) -> int:
    end = int(parse_time(text))
    if not now < end <= _LATEST:
        raise InvalidRequest("not_after lies in the past, or too far away")
    return end


async def issue(context: Context, call: Call) -> Reply:
    """A new key pair with its certificate. The private key is shown once, and not kept."""
    role = await roles.load(context, call.params["name"])
    wish = await make_wish(context, call, role)
    kind = roles.new_kind(call.data, role)
    subject, alternative = _asked(wish)
    private = await asyncio.to_thread(pki.generate, kind)
    public = await asyncio.to_thread(public_of, private)
    return await finish(wish, _content(wish, subject, alternative), public, private=private, kind=kind.type)


async def sign(context: Context, call: Call) -> Reply:
    """A certificate for a request, as the role allows."""
    role = await roles.load(context, call.params["name"])
    wish = await make_wish(context, call, role)
    request = await asyncio.to_thread(pki.read_request, csr_of(call))
    roles.key_fits(role, request.key)
    subject, alternative = _asked(wish, request)
    return await finish(wish, _content(wish, subject, alternative), request.public)


async def sign_verbatim(context: Context, call: Call) -> Reply:
    """A certificate for a request, with the names that it has. Who may call this may have any name."""
    role = await roles.load(context, call.params["name"]) if "name" in call.params else None
    role = {**(role or roles.defaults()), "key_type": roles.ANY, **_verbatim_usages(call.data)}
    wish = await make_wish(context, call, role)
    request = await asyncio.to_thread(pki.read_request, csr_of(call))
    content = replace(
        _content(wish, request.subject, request.names),
        usages=request.usages or tuple(role["key_usage"]),
        extended=request.extended or tuple(role["ext_key_usage"]),
        extended_oids=request.extended_oids or tuple(role["ext_key_usage_oids"]),
    )
    return await finish(wish, content, request.public)


def _verbatim_usages(data: Mapping[str, Any]) -> dict[str, Any]:
    given = {}
    for name, parse in (
        ("key_usage", roles.usage_names),
        ("ext_key_usage", roles.extended_names),
        ("ext_key_usage_oids", roles.oids),
    ):
        if data.get(name) is not None:
            given[name] = parse(data[name], name)
    return given


def csr_of(call: Call) -> str:
    """The request for a certificate that came along."""
    text = parse_text(call.data.get("csr"), "csr")
    if not text:
        raise InvalidRequest('"csr" is empty', "send it in PEM")
    return text


def public_of(private: bytes) -> bytes:
    """The public key of a private one, both in DER."""
    return pki.public_of(private)


def _asked(wish: Wish, request: pki.RequestInfo | None = None) -> tuple[pki.Subject, pki.AltNames]:
    """Subject and alternative names that are asked for, as far as the role allows them."""
    role, data = wish.role, wish.data
    common_name = names.common_name_of(data)
    alternative = names.asked_names(data)
    serial_number = parse_text(data.get("serial_number"), "serial_number")
    if request is not None and role["use_csr_common_name"]:
        common_name = request.subject.common_name
        serial_number = serial_number or request.subject.serial_number
    if request is not None and role["use_csr_sans"]:
        alternative = request.names
    if not common_name and role["require_cn"]:
        raise InvalidRequest(
            "the common_name field is required, or must be provided in a CSR with "
            '"use_csr_common_name" set to true, unless "require_cn" is set to false'
        )
    if common_name and not names.excluded(data):
        alternative = names.with_common_name(alternative, common_name)
    subject = replace(names.subject_of(role, common_name), serial_number=serial_number)
    caller = wish.context.caller
    names.check(roles.filled(role, caller.entity), subject, alternative, caller.name.replace("/", "-"))
    if not common_name and alternative == pki.AltNames():
        raise InvalidRequest("the certificate would name nobody", "send common_name or alt_names")
    return subject, alternative


def _content(wish: Wish, subject: pki.Subject, alternative: pki.AltNames) -> pki.Content:
    role = wish.role
    extended = dict.fromkeys((*(usage for flag, usage in _FLAGS if role[flag]), *role["ext_key_usage"]))
    after, before = life(wish)
    urls = store.urls_of(wish.issuer, wish.settings)
    return pki.Content(
        subject=subject,
        names=alternative,
        serial=pki.new_serial(),
        after=after,
        before=before,
        usages=tuple(role["key_usage"]),
        extended=tuple(extended),
        extended_oids=tuple(role["ext_key_usage_oids"]),
        policies=tuple(role["policy_identifiers"]),
        constraints=role["basic_constraints_valid_for_non_ca"],
        issuing_urls=tuple(urls["issuing_certificates"]),
        crl_urls=tuple(urls["crl_distribution_points"]),
        ocsp_urls=tuple(urls["ocsp_servers"]),
    )


async def finish(wish: Wish, content: pki.Content, public: bytes, *, private: bytes = b"", kind: str = "") -> Reply:
    """Sign, keep a copy unless the role says otherwise, lease it if the role says so, and answer."""
    context, role = wish.context, wish.role
    shape = Shape.read(wish.data)
    lease = None
    if role["generate_lease"]:
        ttl = max(content.before - int(context.now), 1)
        serial = store.serial_text(content.serial)
        lease = await context.leases.begin(ttl=ttl, max_ttl=ttl, renewable=False, internal={"serial": serial})
    pem = await asyncio.to_thread(pki.make_certificate, wish.signer, public, content)
    if not role["no_store"]:
        await context.storage.change([store.put_certificate(pki.read_certificate(pem), wish.issuer.id)])
    chain = store.chain_of(wish.issuer, wish.issuers)
    data = shape.describe(pem, chain, private, remove_roots=shape.without_roots)
    if private:
        data["private_key_type"] = kind
    return Reply(data, lease=lease, warnings=wish.warnings)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a certificate and its key are answered.

    Attributes:
        form: one of pem, der (in base64) and pem_bundle.
        pkcs8: the key in PKCS #8.
        without_roots: the chain ends before the root.
    """

    form: str = "pem"
    pkcs8: bool = False
    without_roots: bool = False

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Shape:
        """From request data. Raises ``InvalidRequest``."""
        form = parse_text(data.get("format"), "format") or "pem"
        if form not in _FORMATS:
            raise InvalidRequest(f"the format is one of {', '.join(_FORMATS)}")
        key_form = parse_text(data.get("private_key_format"), "private_key_format") or "der"
        if key_form not in {"der", "pem", "pkcs8"}:
            raise InvalidRequest("private_key_format is der or pkcs8")
        roots = parse_switch(data.get("remove_roots_from_chain"), "remove_roots_from_chain")
        return cls(form, key_form == "pkcs8", roots)

    def describe(
        self, pem: str, chain: Sequence[str], private: bytes = b"", *, remove_roots: bool = False
    ) -> dict[str, Any]:
        """The fields of an answer with a certificate, the chain of its issuer, and its key if that was made here."""
        info = pki.read_certificate(pem)
        if remove_roots:
            chain = [each for each in chain if not pki.read_certificate(each).self_issued]
        key = pki.private_text(private, pkcs8=self.pkcs8) if private else ""
        data: dict[str, Any] = {
            "serial_number": store.serial_text(info.serial),
            "expiration": info.before,
            "certificate": self._text(pem),
            "issuing_ca": self._text(chain[0]) if chain else "",
            "ca_chain": [self._text(each) for each in chain],
        }
        if self.form == "pem_bundle":
            bundle = "\n".join(part.strip() for part in (key, pem, *chain) if part)
            data["certificate"] = Secret(json.dumps(bundle)) if key else bundle
        if key:
            text = key.strip() if self.form != "der" else base64_of(key)
            data["private_key"] = Secret(json.dumps(text))
        return data

    def _text(self, pem: str) -> str:
        return base64_of(pem) if self.form == "der" else pem.strip()


def base64_of(pem: str) -> str:
    """DER in base64 in one line, from PEM."""
    body = re.sub(r"-----[A-Z0-9 ]+-----|\s", "", pem)
    return base64.b64encode(base64.b64decode(body)).decode()
