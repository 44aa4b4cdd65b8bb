"""Authorities: made here, asked for elsewhere, brought, and signed for others."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_switch, parse_text, parse_texts
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count
from keyhole.core.request import Reply
from keyhole.core.value import Secret
from keyhole.crypto import pki
from keyhole.engines import Call, Context
from keyhole.engines.pki import issuing, names, roles, store

_AUTHORITY_USAGES = ("certsign", "crlsign")
INTERNAL, EXPORTED, EXISTING = "internal", "exported", "existing"
_WAYS = (INTERNAL, EXPORTED, EXISTING)


def _way(call: Call) -> str:
    way = call.params["way"]
    if way not in _WAYS:
        raise InvalidRequest(f"unsupported type {way[:40]!r}", f"use {', '.join(_WAYS)}")
    return way


def _kind(data: Mapping[str, Any]) -> pki.KeyInfo:
    kind = parse_text(data.get("key_type"), "key_type") or "rsa"
    bits = parse_count(data.get("key_bits") or roles.BITS.get(kind, 0), "key_bits")
    if (kind, bits) not in pki.KINDS:
        raise InvalidRequest(f"unsupported key type or key bits: {kind[:40]} {bits}", "use rsa 2048, ec 256 or ed25519")
    return pki.KeyInfo(kind, bits)


async def _key(context: Context, data: Mapping[str, Any], way: str) -> store.Key:
    """The key that is asked for: a new one, which is not stored yet, or one that is here."""
    if way == EXISTING:
        return await store.find_key(context, parse_text(data.get("key_ref"), "key_ref") or store.DEFAULT)
    name = store.check_name(parse_text(data.get("key_name"), "key_name"), await store.load_keys(context), "key")
    kind = _kind(data)
    return store.new_key(await asyncio.to_thread(pki.generate, kind), kind, name)


def _role(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for an authority: any name, and lifes and hashes as the request says."""
    bits = parse_count(data.get("signature_bits") or 0, "signature_bits")
    if bits not in roles.SIGNATURE_BITS:
        raise InvalidRequest("signature_bits is 256, 384, 512, or 0 for the usual one")
    anything = {"allow_any_name": True, "enforce_hostnames": False, "allow_ip_sans": True, "require_cn": False}
    backdate = data.get("not_before_duration")
    role = {**roles.defaults(), **anything, "signature_bits": bits}
    role["use_pss"] = parse_switch(data.get("use_pss"), "use_pss")
    if backdate is not None:
        role["not_before_duration"] = parse_duration(backdate, name="not_before_duration")
    return role


def _named(data: Mapping[str, Any]) -> tuple[pki.Subject, pki.AltNames]:
    """Subject and alternative names of an authority."""
    common_name = names.common_name_of(data)
    subject = replace(
        names.subject_of(data, common_name), serial_number=parse_text(data.get("serial_number"), "serial_number")
    )
    if subject == pki.Subject():
        raise InvalidRequest("the common_name field is required", "send it")
    alternative = names.asked_names(data)
    if common_name and not names.excluded(data):
        alternative = names.with_common_name(alternative, common_name)
    return subject, alternative


def _path_length(data: Mapping[str, Any]) -> int | None:
    value = data.get("max_path_length", -1)
    return None if str(value) in {"-1", "", "None"} else parse_count(value, "max_path_length", most=100)


def _add_issuer(
    settings: store.Settings, issuers: dict[str, store.Issuer], pem: str, key: str, name: str = ""
) -> store.Issuer:
    """A new issuer among these; it is the default one where there is none, or where new ones shall be."""
    issuer = store.Issuer(str(uuid.uuid4()), name, key, pem)
    issuers[issuer.id] = issuer
    if key and (not settings.issuer or settings.follows):
        settings.issuer = issuer.id
    if key and not settings.key:
        settings.key = key
    return issuer


async def generate_root(context: Context, call: Call) -> Reply:
    """A new root: a key and a certificate that is signed with it."""
    data, way = call.data, _way(call)
    settings, issuers = await store.load_settings(context), await store.load_issuers(context)
    name = store.check_name(parse_text(data.get("issuer_name"), "issuer_name"), issuers, "issuer")
    shape = issuing.Shape.read(data)
    subject, alternative = _named(data)
    key = await _key(context, data, way)
    issuer = store.Issuer("", "", key.id, "")
    wish = issuing.Wish(context, data, _role(data), issuer, key, settings, issuers)
    after, before = _root_life(wish)
    content = pki.Content(
        subject=subject,
        names=alternative,
        serial=pki.new_serial(),
        after=after,
        before=before,
        authority=True,
        path_length=_path_length(data),
        usages=_AUTHORITY_USAGES,
        permitted_dns=tuple(parse_texts(data.get("permitted_dns_domains"), "permitted_dns_domains")),
        **_urls(settings.urls),
    )
    public = await asyncio.to_thread(_public, key)
    pem = await asyncio.to_thread(pki.make_certificate, wish.signer, public, content)
    issuer = _add_issuer(settings, issuers, pem, key.id, name)
    writes = [] if way == EXISTING else [key.put()]
    writes += [each.put() for each in {one.id: one for one in (*store.rechain(issuers), issuer)}.values()]
    writes += [store.put_certificate(pki.read_certificate(pem), issuer.id), settings.put()]
    await context.storage.change(writes)
    found = shape.describe(pem, [pem], key.der if way == EXPORTED else b"")
    del found["ca_chain"]
    found |= {"issuer_id": issuer.id, "issuer_name": issuer.name, "key_id": key.id, "key_name": key.name}
    if way == EXPORTED:
        found["private_key_type"] = key.type
    return Reply(found, warnings=wish.warnings)


def _public(key: store.Key) -> bytes:
    return issuing.public_of(key.der)


def _root_life(wish: issuing.Wish) -> tuple[int, int]:
    now = int(wish.context.now)
    return now - wish.role["not_before_duration"], issuing.end_of(wish, now)


def _urls(urls: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "issuing_urls": tuple(urls["issuing_certificates"]),
        "crl_urls": tuple(urls["crl_distribution_points"]),
        "ocsp_urls": tuple(urls["ocsp_servers"]),
    }


async def generate_intermediate(context: Context, call: Call) -> Reply:
    """A key, and a request for a certificate that some other authority is to sign."""
    data, way = call.data, _way(call)
    shape = issuing.Shape.read(data)
    role = _role(data)
    subject, alternative = _named(data)
    key = await _key(context, data, way)
    content = pki.Content(
        subject=subject,
        names=alternative,
        authority=True,
        constraints=parse_switch(data.get("add_basic_constraints"), "add_basic_constraints"),
    )
    csr = await asyncio.to_thread(pki.make_request, key.der, content, role["signature_bits"])
    if way != EXISTING:
        await _keep(context, key)
    found: dict[str, Any] = {"csr": issuing.base64_of(csr) if shape.form == "der" else csr.strip(), "key_id": key.id}
    if way == EXPORTED:
        text = pki.private_text(key.der, pkcs8=shape.pkcs8)
        shown = issuing.base64_of(text) if shape.form == "der" else text.strip()
        found |= {"private_key": Secret(json.dumps(shown)), "private_key_type": key.type}
        if shape.form == "pem_bundle":
            found["csr"] = Secret(json.dumps(f"{shown}\n{csr.strip()}"))
    return Reply(found)


async def generate_key(context: Context, call: Call) -> Reply:
    """A key alone."""
    way = _way(call)
    if way == EXISTING:
        raise InvalidRequest("an existing key needs not be made", "use internal or exported")
    key = await _key(context, call.data, way)
    await _keep(context, key)
    found: dict[str, Any] = {"key_id": key.id, "key_name": key.name, "key_type": key.type}
    if way == EXPORTED:
        found["private_key"] = Secret(json.dumps(pki.private_text(key.der).strip()))
    return Reply(found)


async def set_signed(context: Context, call: Call) -> Reply:
    """The certificate that somebody signed for a request of ours, with those above it."""
    text = parse_text(call.data.get("certificate"), "certificate", most=1024 * 1024)
    certificates, keys = pki.read_pem_bundle(text)
    if not certificates or keys:
        raise InvalidRequest("no data found in PEM block" if not keys else "private keys are not taken here")
    return await _bring(context, certificates, [], must_match=True)


async def bring(context: Context, call: Call) -> Reply:
    """Certificates and keys of authorities that were made elsewhere."""
    text = parse_text(call.data.get("pem_bundle"), "pem_bundle", most=1024 * 1024)
    certificates, keys = pki.read_pem_bundle(text)
    if not certificates and not keys:
        raise InvalidRequest("'pem_bundle' was empty" if not text else "no data found in PEM block", "send it in PEM")
    return await _bring(context, certificates, keys)


async def bring_certificates(context: Context, call: Call) -> Reply:
    """Certificates of authorities, without keys."""
    text = parse_text(call.data.get("pem_bundle"), "pem_bundle", most=1024 * 1024)
    certificates, keys = pki.read_pem_bundle(text)
    if not certificates or keys:
        raise InvalidRequest("private keys found in the PEM bundle but not allowed by the path" if keys else "no data")
    return await _bring(context, certificates, [])


async def bring_key(context: Context, call: Call) -> Reply:
    """One private key."""
    _, keys = pki.read_pem_bundle(parse_text(call.data.get("pem_bundle"), "pem_bundle"))
    if len(keys) != 1:
        raise InvalidRequest("only one key can be in the bundle", "send one, in PEM")
    known = await store.load_keys(context)
    name = parse_text(call.data.get("key_name"), "key_name")
    private, info = await asyncio.to_thread(pki.read_private, keys[0])
    for key in known.values():
        if key.der == private:
            return Reply({"key_id": key.id, "key_name": key.name, "key_type": key.type})
    key = store.new_key(private, info, store.check_name(name, known, "key"))
    await _keep(context, key)
    return Reply({"key_id": key.id, "key_name": key.name, "key_type": key.type})


async def _keep(context: Context, key: store.Key) -> None:
    """Store a new key; the first one is the default."""
    settings = await store.load_settings(context)
    settings.key = settings.key or key.id
    await context.storage.change([key.put(), settings.put()])


async def _bring(context: Context, certificates: list[str], pems: list[str], *, must_match: bool = False) -> Reply:
    settings, issuers = await store.load_settings(context), await store.load_issuers(context)
    keys = await store.load_keys(context)
    infos = [await asyncio.to_thread(pki.read_certificate, pem) for pem in certificates]
    for info in infos:
        if not info.authority:
            raise InvalidRequest("the certificate is not one of an authority", "its basic constraints do not say so")
    new_keys, old_keys = await _match_keys(pems, keys)
    publics = {key.id: await asyncio.to_thread(_public, key) for key in keys.values()}
    known = {pki.read_certificate(each.certificate).digest: each for each in issuers.values()}
    made: dict[str, store.Issuer] = {}
    old_issuers, mapping, changed = [], {}, {}
    for info in infos:
        owner = next((name for name, public in publics.items() if public == info.public), "")
        issuer = known.get(info.digest)
        if issuer is None:
            issuer = known[info.digest] = made[info.digest] = _add_issuer(settings, issuers, info.pem, owner)
        else:
            old_issuers.append(issuer.id)
            if owner and not issuer.key:
                issuer.key = owner
                changed[issuer.id] = issuer
        mapping[issuer.id] = issuer.key
    if must_match and not any(mapping.values()):
        raise InvalidRequest("the certificate belongs to no key that is here", "generate a request here first")
    settings.key = settings.key or (new_keys[0].id if new_keys else "")
    if not settings.issuer:
        settings.issuer = next((name for name, key in mapping.items() if key), "")
    touched = {one.id: one for one in (*store.rechain(issuers), *made.values(), *changed.values())}
    writes = [key.put() for key in new_keys] + [each.put() for each in touched.values()]
    writes += await _copies(context, made)
    await context.storage.change([*writes, settings.put()])
    return Reply(
        {
            "imported_issuers": [each.id for each in made.values()],
            "imported_keys": [key.id for key in new_keys],
            "existing_issuers": old_issuers,
            "existing_keys": old_keys,
            "mapping": mapping,
        }
    )


async def _copies(context: Context, made: Mapping[str, store.Issuer]) -> list[tuple[str, bytes, int]]:
    """Copies of certificates of new issuers among those that are listed, where there is none yet."""
    writes = []
    for issuer in made.values():
        info = pki.read_certificate(issuer.certificate)
        if await store.load_certificate(context, store.serial_text(info.serial)) is None:
            writes.append(store.put_certificate(info, issuer.id))
    return writes


async def _match_keys(pems: list[str], keys: dict[str, store.Key]) -> tuple[list[store.Key], list[str]]:
    """The keys that are new among these, which are added to those that are known, and the ids of the others."""
    made, old = [], []
    for pem in pems:
        private, info = await asyncio.to_thread(pki.read_private, pem)
        existing = next((key for key in keys.values() if key.der == private), None)
        if existing is not None:
            old.append(existing.id)
            continue
        key = store.new_key(private, info)
        keys[key.id] = key
        made.append(key)
    return made, old


async def sign_intermediate(context: Context, call: Call) -> Reply:
    """A certificate for an authority below one of ours, from its request."""
    data = call.data
    wish = await _authority_wish(context, call)
    request = await asyncio.to_thread(pki.read_request, issuing.csr_of(call))
    if parse_switch(data.get("use_csr_values"), "use_csr_values"):
        subject, alternative = request.subject, request.names
    else:
        given = dict(data)
        given["common_name"] = names.common_name_of(data) or request.subject.common_name
        subject, alternative = _named(given)
    after, before = issuing.life(wish, by_default="truncate")
    content = pki.Content(
        subject=subject,
        names=alternative,
        serial=pki.new_serial(),
        after=after,
        before=before,
        authority=True,
        path_length=_below(wish, data),
        usages=_AUTHORITY_USAGES,
        permitted_dns=tuple(parse_texts(data.get("permitted_dns_domains"), "permitted_dns_domains")),
        **_urls(store.urls_of(wish.issuer, wish.settings)),
    )
    return await issuing.finish(wish, content, request.public)


def _below(wish: issuing.Wish, data: Mapping[str, Any]) -> int | None:
    """How many authorities may stand below the new one: as asked, or one fewer than below its issuer."""
    asked = _path_length(data)
    limit = pki.read_certificate(wish.issuer.certificate).path_length
    return limit - 1 if asked is None and limit else asked


async def _authority_wish(context: Context, call: Call) -> issuing.Wish:
    chosen = parse_text(call.data.get("issuer_ref"), "issuer_ref")
    return await issuing.make_wish(context, call, _role(call.data), chosen=chosen)


async def sign_self_issued(context: Context, call: Call) -> Reply:
    """A certificate that names itself as its issuer, signed by one of ours: for who trusts only that one."""
    wish = await _authority_wish(context, call)
    text = parse_text(call.data.get("certificate"), "certificate")
    if not text:
        raise InvalidRequest('missing "certificate"', "send it in PEM")
    info = await asyncio.to_thread(pki.read_certificate, text)
    if not info.authority or not info.self_issued:
        raise InvalidRequest("the given certificate is not a CA certificate that names itself as its issuer")
    if not pki.is_signed_by(info.pem, info.pem):
        raise InvalidRequest("the given certificate is not signed with its own key")
    pem = await asyncio.to_thread(pki.sign_again, wish.signer, info.pem)
    shown = pem if issuing.Shape.read(call.data).form != "der" else issuing.base64_of(pem)
    return Reply({"certificate": shown.strip(), "issuing_ca": wish.issuer.certificate.strip()}, warnings=wish.warnings)


async def delete_root(context: Context, _call: Call) -> Reply:
    """Removes all issuers and keys. Certificates that they signed stay valid where the issuers are trusted."""
    settings = await store.load_settings(context)
    issuers, keys = await store.load_issuers(context), await store.load_keys(context)
    settings.issuer = settings.key = ""
    deletes = [(f"i/{each.id}", each.revision) for each in issuers.values()]
    deletes += [(f"k/{each.id}", each.revision) for each in keys.values()]
    await context.storage.change([settings.put()], deletes)
    return Reply()
