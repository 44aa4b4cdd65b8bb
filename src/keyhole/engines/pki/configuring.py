"""Settings of the mount, of issuers and of keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.fields import parse_switch, parse_text, parse_texts
from keyhole.core.lease import parse_duration
from keyhole.core.request import Operation, Reply
from keyhole.crypto import pki
from keyhole.engines import Call, Context, InvalidForVault
from keyhole.engines.pki import revoking, store

_SCHEMES = ("http://", "https://", "ldap://")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LEAST_CRL = 60  # seconds
_BEHAVIOURS = ("err", "truncate", "permit")
# Settings of Vault that have one value here, which clients may say as well.
_FIXED_CRL = {
    "ocsp_disable": False,
    "ocsp_expiry": "12h",
    "auto_rebuild_grace_period": "12h",
    "enable_delta": False,
    "delta_rebuild_interval": "15m",
    "cross_cluster_revocation": False,
    "unified_crl": False,
    "unified_crl_on_existing_paths": False,
}


def _urls(data: Mapping[str, Any], before: Mapping[str, list[str]]) -> dict[str, list[str]]:
    found = {name: list(before.get(name, ())) for name in store.URL_FIELDS}
    for name in store.URL_FIELDS:
        if name in data:
            found[name] = parse_texts(data[name], name)
            if not all(url.startswith(_SCHEMES) and url.isascii() and url.isprintable() for url in found[name]):
                raise InvalidRequest(f"invalid URL found in {name}", "write http://… or https://…")
    if parse_switch(data.get("enable_templating"), "enable_templating"):
        raise InvalidRequest("enable_templating is not supported", "write the URLs out")
    return found


async def read_urls(context: Context, _call: Call) -> Reply:
    """Where certificates point to."""
    return Reply({**(await store.load_settings(context)).urls, "enable_templating": False})


async def write_urls(context: Context, call: Call) -> Reply:
    """Sets where certificates point to; what is not named stays."""
    settings = await store.load_settings(context)
    settings.urls = _urls(call.data, settings.urls)
    await context.storage.change([settings.put()])
    return Reply({**settings.urls, "enable_templating": False})


def _shown_crl(settings: store.Settings) -> dict[str, Any]:
    hours, rest = divmod(settings.crl["expiry"], 3600)
    return {**settings.crl, **_FIXED_CRL, "expiry": f"{hours}h" if not rest else f"{settings.crl['expiry']}s"}


async def read_crl(context: Context, _call: Call) -> Reply:
    """Settings of the lists."""
    return Reply(_shown_crl(await store.load_settings(context)))


async def write_crl(context: Context, call: Call) -> Reply:
    """Sets how long a list is good, and whether there is anything in it."""
    settings = await store.load_settings(context)
    if call.data.get("expiry"):
        expiry = parse_duration(call.data["expiry"], name="expiry")
        if expiry < _LEAST_CRL:
            raise InvalidRequest(f"expiry is at least {_LEAST_CRL} seconds")
        settings.crl["expiry"] = expiry
    for name in ("disable", "auto_rebuild"):
        if name in call.data:
            settings.crl[name] = parse_switch(call.data[name], name)
    for name in ("enable_delta", "cross_cluster_revocation", "unified_crl", "unified_crl_on_existing_paths"):
        if parse_switch(call.data.get(name), name):
            raise InvalidRequest(f"{name} is not supported", "leave it out")
    settings.revoked += 1  # so that the next list follows the settings
    await context.storage.change([settings.put()])
    return Reply(_shown_crl(settings))


async def read_issuers(context: Context, _call: Call) -> Reply:
    """Which issuer is the default one."""
    settings = await store.load_settings(context)
    return Reply({"default": settings.issuer, "default_follows_latest_issuer": settings.follows})


async def write_issuers(context: Context, call: Call) -> Reply:
    """Sets which issuer is the default one."""
    settings = await store.load_settings(context)
    if "default_follows_latest_issuer" in call.data:
        settings.follows = parse_switch(call.data["default_follows_latest_issuer"], "default_follows_latest_issuer")
    if ref := parse_text(call.data.get("default"), "default"):
        issuer = await store.find_issuer(context, ref)
        settings.issuer = issuer.id
    elif "default_follows_latest_issuer" not in call.data:
        raise InvalidRequest("Invalid issuer specification; must be non-empty", "send default")
    await context.storage.change([settings.put()])
    reply = Reply({"default": settings.issuer, "default_follows_latest_issuer": settings.follows})
    if ref and not issuer.key:
        reply.warnings.append("the default issuer has no key here and can sign nothing")
    return reply


async def replace_root(context: Context, call: Call) -> Reply:
    """Makes an issuer, the one named ``next`` unless said, the default one."""
    ref = parse_text(call.data.get("default"), "default") or "next"
    settings, issuer = await store.load_settings(context), await store.find_issuer(context, ref)
    settings.issuer = issuer.id
    await context.storage.change([settings.put()])
    return Reply({"default": issuer.id})


async def read_keys(context: Context, _call: Call) -> Reply:
    """Which key is the default one."""
    return Reply({"default": (await store.load_settings(context)).key})


async def write_keys(context: Context, call: Call) -> Reply:
    """Sets which key is the default one."""
    settings = await store.load_settings(context)
    settings.key = (await store.find_key(context, parse_text(call.data.get("default"), "default"))).id
    await context.storage.change([settings.put()])
    return Reply({"default": settings.key})


async def list_issuers(context: Context, _call: Call) -> Reply:
    """All issuers."""
    settings, issuers = await store.load_settings(context), await store.load_issuers(context)
    if not issuers:
        raise NotFound("there are no issuers here")
    about = {
        each.id: {
            "issuer_name": each.name,
            "is_default": each.id == settings.issuer,
            "key_id": each.key,
            "serial_number": store.serial_text(pki.read_certificate(each.certificate).serial),
        }
        for each in issuers.values()
    }
    return Reply({"keys": list(issuers), "key_info": about})


def _shown_issuer(issuer: store.Issuer, issuers: Mapping[str, store.Issuer]) -> dict[str, Any]:
    return {
        "issuer_id": issuer.id,
        "issuer_name": issuer.name,
        "key_id": issuer.key,
        "certificate": issuer.certificate,
        "ca_chain": store.chain_of(issuer, issuers),
        "manual_chain": issuer.manual_chain or None,
        "leaf_not_after_behavior": issuer.not_after,
        "usage": ",".join(issuer.usage),
        "revocation_signature_algorithm": issuer.signature,
        "revoked": bool(issuer.revoked),
        "enable_aia_url_templating": False,
        **{name: issuer.urls.get(name, []) for name in store.URL_FIELDS},
    }


async def read_issuer(context: Context, call: Call) -> Reply:
    """All about an issuer."""
    issuers, ref = await store.load_issuers(context), call.params["issuer"]
    try:
        issuer = await store.find_issuer(context, ref)
    except InvalidRequest as error:
        if _ID.fullmatch(ref):
            raise InvalidForVault(error.reason, error.hint) from None
        raise
    return Reply(_shown_issuer(issuer, issuers))


async def write_issuer(context: Context, call: Call) -> Reply:
    """Changes settings of an issuer. A write sets what it does not name back; a patch leaves it."""
    data, issuers = call.data, await store.load_issuers(context)
    found = await store.find_issuer(context, call.params["issuer"])
    issuer = issuers[found.id]
    before = issuer if call.operation is Operation.PATCH else store.Issuer(issuer.id, "", issuer.key, "")
    name = parse_text(data["issuer_name"], "issuer_name") if "issuer_name" in data else before.name
    issuer.name = store.check_name(name, issuers, "issuer", issuer.id)
    issuer.not_after = parse_text(data.get("leaf_not_after_behavior"), "leaf_not_after_behavior") or before.not_after
    if issuer.not_after not in _BEHAVIOURS:
        raise InvalidRequest(f"leaf_not_after_behavior is one of {', '.join(_BEHAVIOURS)}")
    usage = parse_texts(data["usage"], "usage") if data.get("usage") else before.usage
    if not set(usage) <= set(store.USAGES):
        raise InvalidRequest(f"usage is a list of {', '.join(store.USAGES)}")
    issuer.usage = [each for each in store.USAGES if each in usage or each == "read-only"]
    signature = data.get("revocation_signature_algorithm", before.signature)
    issuer.signature = parse_text(signature, "revocation_signature_algorithm")
    revoking.signature_of(issuer.signature)
    issuer.urls = _urls(data, before.urls)
    refs = parse_texts(data["manual_chain"], "manual_chain") if "manual_chain" in data else before.manual_chain
    issuer.manual_chain = _manual_chain(refs, issuer, issuers)
    touched = {each.id: each for each in (*store.rechain(issuers), issuer)}
    await context.storage.change([each.put() for each in touched.values()])
    return Reply(_shown_issuer(issuer, issuers))


def _manual_chain(refs: list[str], issuer: store.Issuer, issuers: Mapping[str, store.Issuer]) -> list[str]:
    chain = [issuer.id if ref == "self" else store.find(issuers, ref, "issuer").id for ref in refs]
    if chain and chain[0] != issuer.id:
        raise InvalidRequest("a manual_chain begins with the issuer itself", "write self first")
    return chain


async def delete_issuer(context: Context, call: Call) -> Reply:
    """Removes an issuer. Its key stays."""
    issuer = await store.find_issuer(context, call.params["issuer"])
    settings, issuers = await store.load_settings(context), await store.load_issuers(context)
    del issuers[issuer.id]
    for each in issuers.values():
        each.manual_chain = [name for name in each.manual_chain if name != issuer.id]
    changed = store.rechain(issuers)
    reply = Reply()
    if settings.issuer == issuer.id:
        settings.issuer = ""
        reply.warnings.append("Deleted issuer was the default issuer; set another one in config/issuers")
    writes = [*(each.put() for each in changed), settings.put()]
    await context.storage.change(writes, [(f"i/{issuer.id}", issuer.revision)])
    return reply


async def list_keys(context: Context, _call: Call) -> Reply:
    """All keys."""
    settings, keys = await store.load_settings(context), await store.load_keys(context)
    if not keys:
        raise NotFound("there are no keys here")
    about = {each.id: {"key_name": each.name, "is_default": each.id == settings.key} for each in keys.values()}
    return Reply({"keys": list(keys), "key_info": about})


async def read_key(context: Context, call: Call) -> Reply:
    """What kind of key it is; never the key itself."""
    key = await store.find_key(context, call.params["key"])
    return Reply({"key_id": key.id, "key_name": key.name, "key_type": key.type})


async def write_key(context: Context, call: Call) -> Reply:
    """Names a key."""
    key = await store.find_key(context, call.params["key"])
    name = parse_text(call.data.get("key_name"), "key_name")
    key.name = store.check_name(name, await store.load_keys(context), "key", key.id)
    await context.storage.change([key.put()])
    return Reply({"key_id": key.id, "key_name": key.name, "key_type": key.type})


async def delete_key(context: Context, call: Call) -> Reply:
    """Removes a key. Its issuers sign no more."""
    key = await store.find_key(context, call.params["key"])
    settings = await store.load_settings(context)
    users = [each for each in (await store.load_issuers(context)).values() if each.key == key.id]
    for issuer in users:
        issuer.key = ""
    writes = [issuer.put() for issuer in users]
    reply = Reply()
    if settings.key == key.id:
        settings.key = ""
        writes.append(settings.put())
        reply.warnings.append("Deleted key was the default key; set another one in config/keys")
    await context.storage.change(writes, [(f"k/{key.id}", key.revision)])
    return reply
