"""Roles: which certificates may be asked for. They lie at ``r/NAME``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.fields import parse_switch, parse_text, parse_texts
from keyhole.core.identity import IdentityView
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_name
from keyhole.core.request import Reply
from keyhole.core.templates import fill, without_templates
from keyhole.crypto import pki
from keyhole.engines import Call, Context
from keyhole.engines.settings import Setting, count, read, seconds, switch, text, texts

ANY = "any"
KEY_TYPES = ("rsa", "ec", "ed25519", ANY)
TEMPLATES = ("allowed_domains", "allowed_uri_sans")
BITS = {"rsa": 2048, "ec": 256, "ed25519": 0, ANY: 0}
SIGNATURE_BITS = (0, 256, 384, 512)
_CHECKS = ("email", "hostname", "disabled")
_DEFAULT_BACKDATE = 30  # seconds


def usage_names(value: Any, name: str) -> list[str]:
    """Key usages, with or without the prefix that Go gives them."""
    return _names(value, name, "keyusage", pki.USAGES)


def extended_names(value: Any, name: str) -> list[str]:
    """Extended key usages, with or without the prefix that Go gives them."""
    return _names(value, name, "extkeyusage", pki.EXTENDED_USAGES)


def _names(value: Any, name: str, prefix: str, known: Mapping[str, object]) -> list[str]:
    found = []
    for item in parse_texts(value, name):
        plain = item.lower().removeprefix(prefix)
        if plain not in known:
            raise InvalidRequest(f"{name} {item[:40]!r} is not known", f"use {', '.join(known)}")
        found.append(plain)
    return found


def oids(value: Any, name: str) -> list[str]:
    """Object ids in digits and dots."""
    found = parse_texts(value, name)
    for item in found:
        parts = item.split(".")
        good = 2 <= len(parts) <= 64 and all(part.isascii() and part.isdecimal() and len(part) <= 18 for part in parts)
        if not good or int(parts[0]) > 2 or (int(parts[0]) < 2 and int(parts[1]) > 39):
            raise InvalidRequest(f"{name} has something that is no object id", "write like 1.3.6.1.4.1.99999.1")
    return found


def _wildcards(value: Any, name: str) -> bool:
    return True if value is None or value == "" else parse_switch(value, name)


_SUBJECT = tuple(texts(name, "of every subject") for name in pki.SUBJECT_FIELDS)
SETTINGS = (
    text("issuer_ref", "default", "who signs: id or name of an issuer"),
    seconds("ttl", "how long a certificate lives unless it is said"),
    seconds("max_ttl", "how long it lives at most"),
    text("not_after", "", "when every certificate ends, instead of ttl"),
    seconds("not_before_duration", "how far a clock may be behind", default=_DEFAULT_BACKDATE),
    switch("allow_localhost", "localhost may be a name", default=True),
    texts("allowed_domains", "domains for the settings that follow"),
    switch("allowed_domains_template", "they have templates"),
    switch("allow_bare_domains", "the domains themselves"),
    switch("allow_subdomains", "what is below the domains"),
    switch("allow_glob_domains", "domains may have *"),
    Setting("allow_wildcard_certificates", _wildcards, True, "names may begin with *.", "boolean"),  # noqa: FBT003 - a default
    switch("allow_any_name", "any name"),
    switch("allow_token_displayname", "the name of who asks"),
    switch("enforce_hostnames", "names are host names", default=True),
    switch("allow_ip_sans", "addresses may be names", default=True),
    texts("allowed_uri_sans", "URIs, which may have *"),
    switch("allowed_uri_sans_template", "they have templates"),
    texts("allowed_other_sans", "OID;UTF8:TEXT, which may have *; or * for any"),
    texts("allowed_serial_numbers", "serial numbers of subjects, which may have *"),
    texts("allowed_user_ids", "not supported but by an empty list"),
    switch("server_flag", "for servers", default=True),
    switch("client_flag", "for clients", default=True),
    switch("code_signing_flag", "for code"),
    switch("email_protection_flag", "for mail"),
    text("key_type", "rsa", "rsa, ec, ed25519 or any"),
    count("key_bits", 0, "of new keys, and at least of others", most=16384),
    count("signature_bits", 0, "of the hash: 256, 384, 512", most=512),
    switch("use_pss", "RSA signs with PSS"),
    Setting(
        "key_usage",
        usage_names,
        ["digitalsignature", "keyagreement", "keyencipherment"],
        "what the key may be used for",
        "list",
    ),
    Setting("ext_key_usage", extended_names, [], "what it may be used for besides", "list"),
    Setting("ext_key_usage_oids", oids, [], "the same by object id", "list"),
    Setting("policy_identifiers", oids, [], "object ids of policies", "list"),
    switch("use_csr_common_name", "sign takes the name of the request", default=True),
    switch("use_csr_sans", "sign takes the alternative names of the request", default=True),
    switch("require_cn", "a common name is needed", default=True),
    texts("cn_validations", "email, hostname or disabled", default=("email", "hostname")),
    switch("basic_constraints_valid_for_non_ca", "say also that it is no authority"),
    switch("generate_lease", "give a lease, whose end revokes the certificate"),
    switch("no_store", "keep no copy"),
    *_SUBJECT,
)


async def load(context: Context, name: str) -> dict[str, Any]:
    """The settings of a role. Raises ``InvalidRequest`` when there is none."""
    item = await context.storage.get_one(f"r/{parse_name(name)}")
    if item.data is None:
        raise InvalidRequest(f"unknown role: {name}", "list roles/ shows those that there are")
    role: dict[str, Any] = json.loads(item.data)
    return role


def defaults() -> dict[str, Any]:
    """A role of which nothing was said."""
    return checked(read(SETTINGS, {}))


def checked(role: dict[str, Any]) -> dict[str, Any]:
    """The role, if its settings go together. Raises ``InvalidRequest``."""
    kind = role["key_type"]
    if kind not in KEY_TYPES:
        raise InvalidRequest(f"unknown key type {str(kind)[:40]!r}", f"use {', '.join(KEY_TYPES)}")
    role["key_bits"] = role["key_bits"] or BITS[kind]
    if kind != ANY and (kind, role["key_bits"]) not in pki.KINDS:
        raise InvalidRequest(f"unsupported key_bits for {kind} keys: {role['key_bits']}")
    if role["signature_bits"] not in SIGNATURE_BITS:
        raise InvalidRequest("signature_bits is 256, 384, 512, or 0 for the usual one")
    if role["max_ttl"] and role["ttl"] > role["max_ttl"]:
        raise InvalidRequest('"ttl" value must be less than "max_ttl" value')
    if not set(role["cn_validations"]) <= set(_CHECKS):
        raise InvalidRequest(f"cn_validations are {', '.join(_CHECKS)}")
    if role["allowed_user_ids"]:
        raise InvalidRequest("allowed_user_ids is not supported", "leave it out")
    for name in TEMPLATES:
        for each in role[name] if role[f"{name}_template"] else ():
            without_templates(each)
    if role["no_store"]:
        role["generate_lease"] = False  # without a copy there is nothing to revoke
    return role


def filled(role: Mapping[str, Any], entity: IdentityView) -> dict[str, Any]:
    """The role with templates filled in for who asks; what cannot be filled in allows nothing."""
    found = dict(role)
    for name in TEMPLATES:
        if role[f"{name}_template"]:
            found[name] = [value for value in (fill(each, entity) for each in role[name]) if value is not None]
    return found


def _path(call: Call) -> str:
    return f"r/{parse_name(call.params['name'])}"


async def write(context: Context, call: Call) -> Reply:
    """Makes a role, or replaces it."""
    role = checked(read(SETTINGS, call.data))
    item = await context.storage.get_one(_path(call))
    await context.storage.change([(_path(call), json.dumps(role).encode(), item.revision)])
    return Reply(_shown(role))


async def patch(context: Context, call: Call) -> Reply:
    """Changes the settings that are named."""
    item = await context.storage.get_one(_path(call))
    if item.data is None:
        raise NotFound("there is no such role")
    role = checked(read(SETTINGS, call.data, json.loads(item.data)))
    await context.storage.change([(_path(call), json.dumps(role).encode(), item.revision)])
    return Reply(_shown(role))


async def show(context: Context, call: Call) -> Reply:
    """The settings of a role."""
    item = await context.storage.get_one(_path(call))
    if item.data is None:
        raise NotFound("there is no such role")
    return Reply(_shown(json.loads(item.data)))


def _shown(role: dict[str, Any]) -> dict[str, Any]:
    usual = {name.lower(): name for name in ("DigitalSignature", "KeyAgreement", "KeyEncipherment", "DataEncipherment")}
    usual |= {name.lower(): name for name in ("ContentCommitment", "EncipherOnly", "DecipherOnly")}
    return {**role, "key_usage": [usual.get(name, name) for name in role["key_usage"]]}


async def delete(context: Context, call: Call) -> None:
    """Removes a role; certificates that it gave stay what they are."""
    item = await context.storage.get_one(_path(call))
    if item.data is not None:
        await context.storage.change((), [(_path(call), item.revision)])


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of roles."""
    names = list(await context.storage.list("r"))
    if not names:
        raise NotFound("there are no roles here")
    return Reply({"keys": names})


def key_fits(role: Mapping[str, Any], key: pki.KeyInfo) -> None:
    """Raises ``InvalidRequest`` when the role takes no key of this type, or only larger ones."""
    if role["key_type"] not in {ANY, key.type}:
        raise InvalidRequest(f"role requires keys of type {role['key_type']}")
    if role["key_type"] != ANY and key.bits < role["key_bits"]:
        raise InvalidRequest(
            f"role requires a minimum of a {role['key_bits']}-bit key, but CSR's key is {key.bits} bits"
        )


def new_kind(data: Mapping[str, Any], role: Mapping[str, Any]) -> pki.KeyInfo:
    """The kind of a new key: of the role, or, where that takes any, as asked for."""
    kind, bits = role["key_type"], role["key_bits"]
    if kind == ANY:
        kind = parse_text(data.get("key_type"), "key_type") or "rsa"
        bits = parse_count(data.get("key_bits") or BITS.get(kind, 0), "key_bits")
    if (kind, bits) not in pki.KINDS:
        raise InvalidRequest(f"unsupported key type or key bits: {kind[:40]} {bits}", "use rsa 2048, ec 256 or ed25519")
    return pki.KeyInfo(kind, bits)
