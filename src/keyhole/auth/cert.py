"""TLS certificates: machines log in with the certificate that they showed in the handshake, SPIFFE ids included.

The server must ask for certificates (``--tls-client-ca``). Fields and texts are those of Vault's method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keyhole.auth import settings
from keyhole.auth.guesses import Guesses
from keyhole.auth.outside import entity_name
from keyhole.auth.roles import Roles
from keyhole.auth.settings import Setting, text, texts
from keyhole.core.cidr import within
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.identity import Login
from keyhole.core.numbers import parse_flag
from keyhole.core.parameters import glob_matches
from keyhole.core.request import Operation, Reply
from keyhole.crypto.client_certificate import (
    ClientCertificate,
    is_vouched_for,
    issued,
    read_authorities,
    read_client_certificate,
    read_crl,
)
from keyhole.engines import Call, Context, Engine, Field, Route

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _unknown(value: Any, name: str) -> list[str]:
    if value not in ("", [], None):
        raise InvalidRequest(f"{name} is not known here", "use the names of the certificate")
    return []


def _certificate(value: Any, name: str) -> str:
    read_authorities(text(value, name))
    return str(value)


ROLE = (
    Setting("certificate", _certificate, "", "the client's own, or those of who signs certificates for it, in PEM"),
    Setting("allowed_names", texts, [], "its common name, a host or an address of mail must be one of these"),
    Setting("allowed_common_names", texts, [], "its common name must be one of these"),
    Setting("allowed_dns_sans", texts, [], "one of its hosts must be one of these"),
    Setting("allowed_email_sans", texts, [], "one of its addresses of mail must be one of these"),
    Setting("allowed_uri_sans", texts, [], "one of its URIs must be one of these, as spiffe://example.org/*"),
    Setting("allowed_organizational_units", texts, [], "one of its units must be one of these"),
    Setting("required_extensions", _unknown, [], "not known here"),
    Setting("display_name", text, "", "taken for Vault's clients"),
    *settings.TOKEN,
)
CONFIG = (
    Setting("disable_binding", parse_flag, default=False, help="taken for Vault's clients"),
    Setting("enable_identity_alias_metadata", parse_flag, default=False, help="keep its names at the alias"),
)
_Names = Callable[[ClientCertificate], Sequence[str]]
_RULES: Mapping[str, _Names] = {
    "allowed_names": lambda found: [found.common_name, *found.dns, *found.emails],
    "allowed_common_names": lambda found: [found.common_name],
    "allowed_dns_sans": lambda found: found.dns,
    "allowed_email_sans": lambda found: found.emails,
    "allowed_uri_sans": lambda found: found.uris,
    "allowed_organizational_units": lambda found: found.units,
}


def _check(role: dict[str, Any], name: str) -> None:
    if not role["certificate"]:
        raise InvalidRequest("failed to parse certificate", 'send it in PEM as "certificate"')
    role["display_name"] = role["display_name"] or name


ROLES = Roles(ROLE, _check, "certs")


class _Method:
    """The handlers of a mount."""

    def __init__(self, guesses: Guesses) -> None:
        self._guesses = guesses

    async def login(self, context: Context, call: Call) -> Reply:
        named = call.data.get("name") or ""
        with self._guesses.one(call.remote, context.now):
            if not call.certificate:
                raise InvalidRequest(
                    "client certificate must be supplied", "connect with one; the server asks with --tls-client-ca"
                )
            found = read_client_certificate(call.certificate)
            names = [named] if isinstance(named, str) and named else await ROLES.names(context)
            revoked = await _revoked(context)
            for name in names:
                role = None if issued(found.der) in revoked else await ROLES.load(context, name)
                if role is not None and _fits(role, found, context.now, call.remote, revoked):
                    return Reply(login=_login(role, found, await _config(context)))
            raise InvalidRequest("invalid certificate or no client certificate supplied", "ask who made the role")

    async def read_config(self, context: Context, _call: Call) -> Reply:
        return Reply(await _config(context))

    async def write_config(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one("config")
        config = await _config(context)
        for each in CONFIG:
            if call.data.get(each.name) is not None:
                config[each.name] = each.parse(call.data[each.name], each.name)
        await context.storage.change([("config", json.dumps(config).encode(), item.revision)])

    async def read_crl(self, context: Context, call: Call) -> Reply:
        item = await context.storage.get_one(f"crl/{_list_name(call)}")
        if item.data is None:
            raise NotFound("there is no such list")
        _, serials = read_crl(item.data.decode())
        return Reply({"serials": {f"{serial}": {} for serial in sorted(serials)}})

    async def write_crl(self, context: Context, call: Call) -> None:
        pem = text(call.data.get("crl") or "", "crl")
        read_crl(pem)
        item = await context.storage.get_one(f"crl/{_list_name(call)}")
        await context.storage.change([(f"crl/{_list_name(call)}", pem.encode(), item.revision)])

    async def delete_crl(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one(f"crl/{_list_name(call)}")
        if item.data is not None:
            await context.storage.change((), [(f"crl/{_list_name(call)}", item.revision)])


async def _revoked(context: Context) -> frozenset[tuple[str, int]]:
    """Issuer and number of all that the lists name."""
    found: set[tuple[str, int]] = set()
    for name in await context.storage.list("crl"):
        item = await context.storage.get_one(f"crl/{name}")
        if item.data is not None:
            issuer, serials = read_crl(item.data.decode())
            found |= {(issuer, serial) for serial in serials}
    return frozenset(found)


def _list_name(call: Call) -> str:
    if not _NAME.fullmatch(call.params["name"]):
        raise InvalidRequest("this cannot be the name of a list", "use letters, digits and . _ -")
    return call.params["name"]


async def _config(context: Context) -> dict[str, Any]:
    item = await context.storage.get_one("config")
    stored = json.loads(item.data) if item.data is not None else {}
    return {each.name: stored.get(each.name, each.default) for each in CONFIG}


def _fits(
    role: Mapping[str, Any], found: ClientCertificate, now: float, remote: str, revoked: frozenset[tuple[str, int]]
) -> bool:
    """Whether the role is for this certificate. A kind of names that is not restricted may be anything."""
    if role["token_bound_cidrs"] and not within(remote, role["token_bound_cidrs"]):
        return False
    for rule, names in _RULES.items():
        if role[rule] and not any(glob_matches(each, name) for each in role[rule] for name in names(found) if name):
            return False
    authorities = [each for each in read_authorities(role["certificate"]) if issued(each) not in revoked]
    return is_vouched_for(found.der, authorities, now)


def _login(role: Mapping[str, Any], found: ClientCertificate, config: Mapping[str, Any]) -> Login:
    """A SPIFFE certificate has no common name; its id names it as well."""
    name = found.common_name or next(iter(found.uris), "") or next(iter(found.dns), "") or f"{found.serial:x}"
    meta = {
        "cert_name": role["name"],
        "common_name": found.common_name,
        "serial_number": str(found.serial),
        "subject_key_id": found.subject_key_id,
        "authority_key_id": found.authority_key_id,
        **({"uri": found.uris[0]} if found.uris else {}),
    }
    kept = {"cert_name": role["name"], "common_name": found.common_name}
    return settings.login_of(
        entity_name("cert", name),
        role,
        meta,
        alias=name,
        alias_meta=kept if config["enable_identity_alias_metadata"] else {},
    )


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    r = _Method(guesses)
    read, write = Operation.READ, Operation.CREATE
    return Engine(
        "cert",
        (
            Route(
                "login",
                {write: r.login},
                open=True,
                fields=(Field("name", "which role; any that fits where it is left out"),),
                help="A token for the certificate of this connection.",
            ),
            Route(
                "config", {read: r.read_config, write: r.write_config}, fields=settings.fields(CONFIG), help="Choices."
            ),
            Route(
                "crls/{name}",
                {read: r.read_crl, write: r.write_crl, Operation.DELETE: r.delete_crl},
                fields=(Field("crl", "the list, in PEM"),),
                help="A list of certificates that were revoked.",
            ),
            *ROLES.routes(),
        ),
    )
