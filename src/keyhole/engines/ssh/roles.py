"""Roles: who may be given what. A role is for certificates or for one-time passwords, and has settings of its kind.

They lie at ``r/NAME``.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.fields import parse_map, parse_text, parse_texts
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_name
from keyhole.core.request import Reply
from keyhole.core.templates import without_templates
from keyhole.crypto import ssh
from keyhole.engines import Call, Context
from keyhole.engines.settings import Setting, count, pairs, read, seconds, switch, text

CA = "ca"
OTP = "otp"
_DEFAULT_BACKDATE = 30  # seconds
_KIND_NAMES = {"rsa": "ssh-rsa", "ed25519": "ssh-ed25519", "ssh-rsa": "ssh-rsa", "ssh-ed25519": "ssh-ed25519"}
_CURVE_NAMES = {"ec": 0, "ecdsa": 0, **{kind: int(kind[-3:]) for kind in ssh.CURVES}}


def _lengths(value: Any, name: str) -> dict[str, list[int]]:
    """Sizes of keys by type; a type that is not in a map that says something is refused."""
    found: dict[str, list[int]] = {}
    if value is None or value == "":
        return found
    if not isinstance(value, dict):
        value = parse_map(value, name)
    for kind, sizes in value.items():
        if kind not in _KIND_NAMES and kind not in _CURVE_NAMES:
            raise InvalidRequest(
                f"{name} names an unknown type of key", f"use {', '.join((*_KIND_NAMES, *_CURVE_NAMES))}"
            )
        items = sizes if isinstance(sizes, list) else [sizes]
        found[kind] = [parse_count(item, name, most=16384) for item in items]
    return found


def _signer(value: Any, name: str) -> str:
    signer = parse_text(value, name)
    if signer in {"", "default"}:
        return ""
    if signer == "ssh-rsa":
        raise InvalidRequest(f"{name} ssh-rsa signs with SHA-1, which no server takes any more", "leave it out")
    if signer not in ssh.SIGNERS:
        raise InvalidRequest(f"unknown algorithm signer {signer[:40]!r}", f"use {' or '.join(ssh.SIGNERS)}")
    return signer


CA_SETTINGS = (
    text("allowed_users", about="names that a user's certificate may have, with commas; * for any"),
    switch("allowed_users_template", "allowed_users has templates, filled in for the entity that asks"),
    text("default_user", about="the name in a certificate when none is asked for"),
    switch("default_user_template", "default_user has templates"),
    text("allowed_domains", about="domains that a host's certificate may have, with commas; * for any"),
    switch("allowed_domains_template", "allowed_domains has templates"),
    text("allowed_critical_options", about="critical options that may be asked for, with commas; empty for any"),
    text("allowed_extensions", about="extensions that may be asked for, with commas; * for any"),
    pairs("default_critical_options", "critical options when none are asked for"),
    pairs("default_extensions", "extensions when none are asked for"),
    switch("default_extensions_template", "values of default_extensions have templates"),
    switch("allow_user_certificates", "certificates of users may be made"),
    switch("allow_host_certificates", "certificates of hosts may be made"),
    switch("allow_bare_domains", "a host may have the name of an allowed domain itself"),
    switch("allow_subdomains", "a host may have a name below an allowed domain"),
    switch("allow_user_key_ids", "who asks may choose the key id"),
    switch("allow_empty_principals", "a certificate may count for every name"),
    text("key_id_format", about="with {{token_display_name}}, {{role_name}} and {{public_key_hash}}"),
    Setting("allowed_user_key_lengths", _lengths, {}, "sizes of keys by type; empty for any", "map"),
    Setting("algorithm_signer", _signer, "", "how an RSA authority signs: rsa-sha2-256, rsa-sha2-512", "string"),
    seconds("ttl", "how long a certificate lives unless it is said"),
    seconds("max_ttl", "how long it lives at most"),
    seconds("not_before_duration", "how far a server's clock may be behind", default=_DEFAULT_BACKDATE),
)
OTP_SETTINGS = (
    text("default_user", about="the user when none is asked for"),
    text("allowed_users", about="users that may be asked for, with commas; * for any"),
    text("cidr_list", about="blocks of addresses of hosts, with commas"),
    text("exclude_cidr_list", about="blocks that are left out of those"),
    count("port", 22, "port of the hosts, for who asks", most=65535),
)
KEY_TYPE = Setting("key_type", lambda value, _name: value, "", "ca or otp", "string")


def key_path(call: Call) -> str:
    """Where the role of a call lies."""
    return f"r/{parse_name(call.params['name'])}"


async def load(context: Context, name: str) -> dict[str, Any] | None:
    """The settings of a role, with its ``key_type``."""
    item = await context.storage.get_one(f"r/{parse_name(name)}")
    return None if item.data is None else json.loads(item.data)


async def write(context: Context, call: Call) -> None:
    """Makes a role, or replaces it."""
    kind = parse_text(call.data.get("key_type"), "key_type")
    if kind not in {CA, OTP}:
        raise InvalidRequest("missing key type" if not kind else "invalid key type", "key_type is ca or otp")
    role = read(CA_SETTINGS if kind == CA else OTP_SETTINGS, call.data)
    (_check_ca if kind == CA else _check_otp)(role)
    path = key_path(call)
    item = await context.storage.get_one(path)
    await context.storage.change([(path, json.dumps({"key_type": kind, **role}).encode(), item.revision)])


def _check_ca(role: Mapping[str, Any]) -> None:
    if not role["allow_user_certificates"] and not role["allow_host_certificates"]:
        raise InvalidRequest("either 'allow_user_certificates' or 'allow_host_certificates' must be set to 'true'")
    if role["max_ttl"] and role["ttl"] > role["max_ttl"]:
        raise InvalidRequest('"ttl" value must be less than "max_ttl" when both are specified')
    for name in ("allowed_users", "default_user", "allowed_domains"):
        if role[f"{name}_template"]:
            without_templates(role[name])
    if role["default_extensions_template"]:
        for value in role["default_extensions"].values():
            without_templates(value)


def _check_otp(role: Mapping[str, Any]) -> None:
    if not role["default_user"]:
        raise InvalidRequest("missing default user", "send default_user")
    for name in ("cidr_list", "exclude_cidr_list"):
        blocks(role[name], name)


def blocks(value: str, name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Blocks of addresses from a text with commas. Raises ``InvalidRequest``."""
    try:
        return [ipaddress.ip_network(part, strict=False) for part in parse_texts(value, name)]
    except ValueError:
        raise InvalidRequest(f"{name} has something that is no block of addresses", "write 10.0.0.0/8") from None


async def show(context: Context, call: Call) -> Reply:
    """The settings of a role."""
    role = await load(context, call.params["name"])
    if role is None:
        raise NotFound(f"there is no role {call.params['name']!r}")
    if role["key_type"] == CA:
        role["algorithm_signer"] = role["algorithm_signer"] or "default"
    return Reply(role)


async def load_all(context: Context) -> dict[str, dict[str, Any]]:
    """All roles by name."""
    names = list(await context.storage.list("r"))
    items = await context.storage.get(*(f"r/{name}" for name in names))
    return {name: json.loads(item.data) for name, item in zip(names, items, strict=True) if item.data is not None}


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of roles, and the kind of each."""
    found = await load_all(context)
    if not found:
        raise NotFound("there are no roles here")
    return Reply(
        {"keys": list(found), "key_info": {name: {"key_type": role["key_type"]} for name, role in found.items()}}
    )


def key_fits(role: Mapping[str, Any], key: ssh.PublicKey) -> None:
    """Raises ``InvalidRequest`` when a role does not allow a public key of this type and size."""
    allowed: Mapping[str, list[int]] = role["allowed_user_key_lengths"]
    if not allowed:
        return
    found = False
    for kind, sizes in allowed.items():
        if _KIND_NAMES.get(kind) == key.kind:
            found = True
            if key.kind == ssh.ED25519 or key.bits in sizes:
                return
        elif kind in _CURVE_NAMES and key.kind in ssh.CURVES and _CURVE_NAMES[kind] in {0, key.bits}:
            found = True
            if _CURVE_NAMES[kind] or key.bits in sizes:
                return
    if not found:
        raise InvalidRequest(f"public_key failed to meet the key requirements: key of type {key.kind} is not allowed")
    raise InvalidRequest(f"public_key failed to meet the key requirements: key is of an invalid size: {key.bits}")
