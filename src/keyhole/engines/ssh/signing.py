"""Certificates: what is asked for, held against the role, signed by the authority."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_map, parse_text
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count
from keyhole.core.request import Reply
from keyhole.core.templates import fill
from keyhole.core.value import Secret
from keyhole.crypto import ssh
from keyhole.engines import Call, Context
from keyhole.engines.ssh.authority import load_private
from keyhole.engines.ssh.roles import CA, key_fits, load

_KEY_ID = "keyhole-{{token_display_name}}-{{public_key_hash}}"
_MOST_PRINCIPALS = 256  # OpenSSH takes no more
_LONGEST_NAME = 255
_LONGEST_KEY_ID = 1024


@dataclass(frozen=True, slots=True)
class _Wish:
    """A call to sign, with the role that it names."""

    context: Context
    data: Mapping[str, Any]
    name: str
    role: Mapping[str, Any]


async def sign(context: Context, call: Call) -> Reply:
    """A certificate for a public key."""
    wish = await _wish(context, call)
    text = parse_text(call.data.get("public_key"), "public_key")
    if not text:
        raise InvalidRequest("missing public_key", "send the line of the .pub file")
    return Reply(await _certified(wish, ssh.read_public(text)))


async def issue(context: Context, call: Call) -> Reply:
    """A new key pair with its certificate. The private key is shown once, and not kept."""
    wish = await _wish(context, call)
    kind, bits = _new_kind(call.data)
    private = await asyncio.to_thread(ssh.generate, kind, bits)
    public = ssh.read_public(ssh.public_of(private))
    data = await _certified(wish, public)
    data["private_key"] = Secret(json.dumps(private.decode()))
    data["private_key_type"] = kind
    return Reply(data)


async def pair(context: Context, call: Call) -> Reply:
    """What a service lends for logins: a pair that was never anywhere else, with a certificate for the role's user."""
    wish = await _wish(context, call)
    private = ssh.generate(ssh.ED25519)
    data = await _certified(wish, ssh.read_public(ssh.public_of(private)))
    data["signed_key"] = data["signed_key"].strip()
    data["private_key"] = Secret(json.dumps(private.decode()))
    return Reply(data)


async def _wish(context: Context, call: Call) -> _Wish:
    name = call.params["name"]
    role = await load(context, name)
    if role is None:
        raise InvalidRequest(f"Unknown role: {name}", "list roles/ shows those that there are")
    if role["key_type"] != CA:
        raise InvalidRequest("the role is not one for certificates", "use creds/NAME")
    return _Wish(context, call.data, name, role)


def _new_kind(data: Mapping[str, Any]) -> tuple[str, int]:
    kind = parse_text(data.get("key_type"), "key_type") or "rsa"
    bits = parse_count(data.get("key_bits") or 0, "key_bits")
    if kind == "rsa" and bits in {0, *ssh.RSA_SIZES}:
        return ssh.RSA, bits or ssh.RSA_SIZES[0]
    if kind == "ed25519" and bits in {0, 256}:
        return ssh.ED25519, 0
    if kind == "ec" and bits in {0, 256, 384, 521}:
        return f"ecdsa-sha2-nistp{bits or 256}", 0
    raise InvalidRequest("key_type is rsa (2048, 3072, 4096), ec (256, 384, 521) or ed25519")


async def _certified(wish: _Wish, key: ssh.PublicKey) -> dict[str, Any]:
    role = wish.role
    key_fits(role, key)
    host = _is_host(wish)
    now = int(wish.context.now)
    certificate = ssh.Certificate(
        key=key,
        serial=int.from_bytes(os.urandom(8)),
        host=host,
        key_id=_key_id(wish, key),
        principals=_principals(wish, host=host),
        after=max(now - role["not_before_duration"], 0),
        before=now + _ttl(wish),
        critical=_critical(wish),
        extensions=_extensions(wish),
    )
    private = await load_private(wish.context)
    line = await asyncio.to_thread(ssh.certify, private, certificate, role["algorithm_signer"])
    return {"serial_number": f"{certificate.serial:x}", "signed_key": f"{line}\n"}


def _is_host(wish: _Wish) -> bool:
    kind = parse_text(wish.data.get("cert_type"), "cert_type") or "user"
    if kind not in {"user", "host"}:
        raise InvalidRequest("cert_type must be either 'user' or 'host'")
    if not wish.role[f"allow_{kind}_certificates"]:
        raise InvalidRequest(f"cert_type '{kind}' is not allowed by role")
    return kind == "host"


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in (part.strip() for part in text.split(",")) if name))


def _principals(wish: _Wish, *, host: bool) -> tuple[str, ...]:
    """The names that are asked for, or the user's default. A certificate without names would count for all of them."""
    role = wish.role
    asked = _names(parse_text(wish.data.get("valid_principals"), "valid_principals"))
    default = () if host else _filled(wish, "default_user")
    wanted = asked or default
    if not wanted:
        if role["allow_empty_principals"]:
            return ()
        raise InvalidRequest(
            "refusing to issue unsafe, globally-valid certificate with no principals specified; "
            "set valid_principals or default_user"
        )
    if len(wanted) > _MOST_PRINCIPALS or not all(len(name) <= _LONGEST_NAME and name.isprintable() for name in wanted):
        raise InvalidRequest(f"valid_principals are at most {_MOST_PRINCIPALS} printable names")
    allowed = _filled(wish, "allowed_domains" if host else "allowed_users")
    if not allowed and not set(wanted) <= set(default):
        raise InvalidRequest("role is not configured to allow any principals")
    for name in wanted:
        fits = _host_fits(name, allowed, role) if host else name in {*allowed, *default} or allowed == ("*",)
        if not fits:
            raise InvalidRequest(f"{name} is not a valid value for valid_principals")
    return wanted


def _filled(wish: _Wish, name: str) -> tuple[str, ...]:
    """Names of the role, with templates filled in for who asks; one that cannot be filled in is none."""
    found = _names(wish.role[name])
    if not wish.role[f"{name}_template"]:
        return found
    entity = wish.context.caller.entity
    return tuple(filled for filled in (fill(each, entity) for each in found) if filled is not None)


def _host_fits(name: str, domains: tuple[str, ...], role: Mapping[str, Any]) -> bool:
    if domains == ("*",):
        return True
    for domain in domains:
        if (name == domain and role["allow_bare_domains"]) or (
            role["allow_subdomains"] and name.endswith(f".{domain}") and not name.startswith(".")
        ):
            return True
    return False


def _ttl(wish: _Wish) -> int:
    asked = parse_duration(wish.data.get("ttl") or 0)
    most = wish.role["max_ttl"] or wish.context.max_ttl
    if asked > most:
        raise InvalidRequest(f"ttl is larger than maximum allowed {most}")
    return min(asked or wish.role["ttl"] or wish.context.default_ttl, most)


def _key_id(wish: _Wish, key: ssh.PublicKey) -> str:
    asked = parse_text(wish.data.get("key_id"), "key_id")
    if asked:
        if not wish.role["allow_user_key_ids"]:
            raise InvalidRequest("setting key_id is not allowed by role")
        text = asked
    else:
        text = wish.role["key_id_format"] or _KEY_ID
        for name, value in (
            ("token_display_name", wish.context.caller.name.replace("/", "-")),
            ("role_name", wish.name),
            ("public_key_hash", key.digest),
        ):
            text = text.replace(f"{{{{{name}}}}}", value)
    if len(text) > _LONGEST_KEY_ID or not text.isprintable():
        raise InvalidRequest(f"a key id is at most {_LONGEST_KEY_ID} printable characters")
    return text


def _critical(wish: _Wish) -> dict[str, str]:
    asked = parse_map(wish.data.get("critical_options"), "critical_options")
    if not asked:
        return dict(wish.role["default_critical_options"])
    allowed = _names(wish.role["allowed_critical_options"])
    refused = sorted(set(asked) - set(allowed)) if allowed else []
    if refused:
        raise InvalidRequest(f"critical options not on allowed list: {', '.join(refused)[:200]}")
    return _options(asked)


def _extensions(wish: _Wish) -> dict[str, str]:
    asked = parse_map(wish.data.get("extensions"), "extensions")
    if not asked:
        return _default_extensions(wish)
    allowed = _names(wish.role["allowed_extensions"])
    refused = [] if allowed == ("*",) else sorted(set(asked) - set(allowed))
    if refused:
        raise InvalidRequest(f"extensions {', '.join(refused)[:200]} are not on allowed list")
    return _options(asked)


def _default_extensions(wish: _Wish) -> dict[str, str]:
    given: dict[str, str] = wish.role["default_extensions"]
    if not wish.role["default_extensions_template"]:
        return dict(given)
    entity = wish.context.caller.entity
    filled = ((name, fill(value, entity)) for name, value in given.items())
    return {name: value for name, value in filled if value is not None}


def _options(asked: dict[str, str]) -> dict[str, str]:
    if not all(name and len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable() for name in asked):
        raise InvalidRequest("names of options are printable ASCII")
    return asked
