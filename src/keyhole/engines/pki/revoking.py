"""Revocation: durable before it is answered, and in the next list that anybody asks for.

A list is made when it is asked for and the one that is there is old: something was revoked since, or its time comes.
So there is no moment at which a revoked certificate is missing from a list that was made after it was revoked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any, NamedTuple

from keyhole.core.errors import Conflict, InvalidRequest, NotFound
from keyhole.core.fields import parse_switch, parse_text
from keyhole.core.lease import Lease, parse_duration
from keyhole.core.request import Reply
from keyhole.core.times import format_time
from keyhole.crypto import pki
from keyhole.engines import Call, Context
from keyhole.engines.pki import store

_SIGNATURES = {"": (0, False)}
_SIGNATURES |= {f"sha{bits}withrsa": (bits, False) for bits in (256, 384, 512)}
_SIGNATURES |= {f"sha{bits}withrsapss": (bits, True) for bits in (256, 384, 512)}
_BUFFER = 72 * 3600
_TIDIED = (
    "Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs."
)


class _Revoked(NamedTuple):
    """A certificate that was revoked: by whom it was signed, when it was revoked, and when it ends anyway."""

    serial: int
    issuer: str
    when: int
    before: int


def signature_of(text: str) -> tuple[int, bool]:
    """Bits of the hash, and whether RSA signs with PSS, from the name that Go gives it. Raises ``InvalidRequest``."""
    found = _SIGNATURES.get(text.lower())
    if found is None:
        raise InvalidRequest(
            "revocation_signature_algorithm is SHA256WithRSA, … or SHA512WithRSAPSS", "or leave it out"
        )
    return found


async def revoke(context: Context, call: Call) -> Reply:
    """Revokes a certificate, by its serial or itself."""
    serial = parse_text(call.data.get("serial_number"), "serial_number")
    pem = parse_text(call.data.get("certificate"), "certificate")
    if bool(serial) == bool(pem):
        raise InvalidRequest("The serial number or certificate to revoke must be provided.", "send one of them")
    if pem:
        return await _revoke_pem(context, pem)
    try:
        stored = await store.load_certificate(context, serial)
    except NotFound:
        stored = None
    if stored is None:
        raise InvalidRequest(
            f"certificate with serial {serial[:64]} not found", "list certs/ shows those that are kept"
        )
    return await _revoke(context, pki.read_certificate(stored.pem), stored.issuer)


async def revoke_with_key(context: Context, call: Call) -> Reply:
    """Revokes a certificate for who has its private key."""
    private, _ = await asyncio.to_thread(
        pki.read_private, parse_text(call.data.get("private_key"), "private_key") or "none"
    )
    pem = parse_text(call.data.get("certificate"), "certificate")
    if not pem:
        stored = await store.load_certificate(context, parse_text(call.data.get("serial_number"), "serial_number"))
        if stored is None:
            raise InvalidRequest("certificate with this serial not found")
        pem = stored.pem
    if pki.public_of(private) != pki.read_certificate(pem).public:
        raise InvalidRequest("the private key is not the one of the certificate")
    return await _revoke_pem(context, pem)


async def _revoke_pem(context: Context, pem: str) -> Reply:
    info = await asyncio.to_thread(pki.read_certificate, pem)
    for issuer in (await store.load_issuers(context)).values():
        if await asyncio.to_thread(pki.is_signed_by, info.pem, issuer.certificate):
            return await _revoke(context, info, issuer.id)
    raise InvalidRequest("certificate was not signed by an issuer that is here")


async def _revoke(context: Context, info: pki.CertificateInfo, issuer: str) -> Reply:
    serial, now = store.serial_text(info.serial), int(context.now)
    own = await store.load_issuers(context)
    if any(pki.read_certificate(each.certificate).digest == info.digest for each in own.values() if each.id == issuer):
        raise InvalidRequest("adding issuer to its own CRL is not allowed", "use issuer/REF/revoke")
    path = f"v/{store.serial_path(serial)}"
    [item] = await context.storage.get(path)
    if item.data is not None:
        return _said(json.loads(item.data)["when"])
    if info.before <= now:
        return Reply(warnings=[f"certificate with serial {serial} already expired; refusing to add to CRL"])
    settings = await store.load_settings(context)
    settings.revoked += 1
    entry = {"issuer": issuer, "when": now, "before": info.before}
    await context.storage.change([(path, json.dumps(entry).encode(), item.revision), settings.put()])
    return _said(now)


def _said(when: int) -> Reply:
    return Reply({"revocation_time": when, "revocation_time_rfc3339": format_time(when), "state": "revoked"})


async def end_lease(context: Context, lease: Lease) -> None:
    """Revokes the certificate of a lease. One that was never made, or has ended, needs no revocation."""
    stored = await store.load_certificate(context, lease.internal["serial"])
    if stored is None:
        return
    for _ in range(20):
        with contextlib.suppress(Conflict):
            await _revoke(context, pki.read_certificate(stored.pem), stored.issuer)
            return
    raise Conflict("the certificate is being revoked by many at once", "try again")


async def revoke_issuer(context: Context, call: Call) -> Reply:
    """Revokes an issuer: it signs no more, and is in the list of the issuer above it, if that is here."""
    issuer = await store.find_issuer(context, call.params["issuer"])
    if not issuer.revoked:
        issuer.revoked = int(context.now)
        settings = await store.load_settings(context)
        writes = [issuer.put()]
        info = pki.read_certificate(issuer.certificate)
        for above in (await store.load_issuers(context)).values():
            if above.id == issuer.id or not pki.is_signed_by(issuer.certificate, above.certificate):
                continue
            path = f"v/{store.serial_path(store.serial_text(info.serial))}"
            [item] = await context.storage.get(path)
            if item.data is None:
                entry = {"issuer": above.id, "when": issuer.revoked, "before": info.before}
                writes.append((path, json.dumps(entry).encode(), item.revision))
            break
        settings.revoked += 1
        await context.storage.change([*writes, settings.put()])
    found = {"revocation_time": issuer.revoked, "revocation_time_rfc3339": format_time(issuer.revoked)}
    return Reply({"issuer_id": issuer.id, "issuer_name": issuer.name, "certificate": issuer.certificate, **found})


async def _load_revoked(context: Context) -> list[_Revoked]:
    names = list(await context.storage.list("v"))
    items = await context.storage.get(*(f"v/{name}" for name in names))
    return [
        _Revoked(int(name.replace("-", ""), 16), **json.loads(item.data))
        for name, item in zip(names, items, strict=True)
        if item.data is not None
    ]


async def list_revoked(context: Context, _call: Call) -> Reply:
    """Serials of what was revoked."""
    names = list(await context.storage.list("v"))
    if not names:
        raise NotFound("nothing was revoked")
    return Reply({"keys": [name.replace("-", ":") for name in names]})


async def revoked_at(context: Context, serial: str) -> int:
    """When a certificate was revoked, in seconds since the epoch; 0 for never."""
    [item] = await context.storage.get(f"v/{store.serial_path(serial)}")
    return 0 if item.data is None else json.loads(item.data)["when"]


async def revoked_by(context: Context, serial: str, issuer: str) -> int:
    """When this issuer's certificate with this serial was revoked, in seconds since the epoch; 0 for never."""
    [item] = await context.storage.get(f"v/{store.serial_path(serial)}")
    entry = json.loads(item.data) if item.data is not None else {}
    return int(entry["when"]) if entry.get("issuer") == issuer else 0


async def current_crl(context: Context, issuer: store.Issuer, *, fresh: bool = False) -> bytes:
    """The list of an issuer in DER; empty where its key is not here or it signs no lists.

    Args:
        context: of the request.
        issuer: whose list.
        fresh: make a new one in any case.
    """
    if not issuer.key or "crl-signing" not in issuer.usage:
        return b""
    settings = await store.load_settings(context)
    path = f"l/{issuer.id}"
    [item] = await context.storage.get(path)
    old: dict[str, Any] = json.loads(item.data) if item.data is not None else {}
    if old and not fresh and old["revoked"] == settings.revoked and context.now < old["renew"]:
        return base64.b64decode(old["crl"])
    now, life = int(context.now), settings.crl["expiry"]
    revoked = [] if settings.crl["disable"] else await _load_revoked(context)
    entries = [(each.serial, each.when) for each in revoked if each.issuer == issuer.id and each.before > now]
    key = await store.find_key(context, issuer.key)
    signer = pki.Issuer(key.der, issuer.certificate, *signature_of(issuer.signature))
    number = old.get("number", 0) + 1
    crl = await asyncio.to_thread(pki.make_crl, signer, number, now, now + life, entries)
    # Renewed at half its life, so that who fetches it rarely has one that is still good.
    made = {
        "crl": base64.b64encode(crl).decode(),
        "number": number,
        "renew": now + life // 2,
        "revoked": settings.revoked,
    }
    try:
        await context.storage.change([(path, json.dumps(made).encode(), item.revision)])
    except Conflict:
        if fresh:
            raise
        return await current_crl(context, issuer)  # somebody else made one meanwhile
    return crl


async def rotate(context: Context, _call: Call) -> Reply:
    """Makes new lists of all issuers."""
    for issuer in (await store.load_issuers(context)).values():
        await current_crl(context, issuer, fresh=True)
    return Reply({"success": True})


async def tidy(context: Context, call: Call) -> Reply:
    """Removes copies of certificates, and revocations, whose certificates have ended some time ago."""
    copies = parse_switch(call.data.get("tidy_cert_store"), "tidy_cert_store")
    revoked = any(parse_switch(call.data.get(name), name) for name in ("tidy_revoked_certs", "tidy_revocation_list"))
    buffer = call.data.get("safety_buffer")
    buffer = _BUFFER if buffer is None or buffer == "" else parse_duration(buffer, name="safety_buffer")
    if buffer < 1:
        raise InvalidRequest("safety_buffer must be greater than zero")
    settings = await store.load_settings(context)
    keep = {
        store.serial_text(pki.read_certificate(each.certificate).serial)
        for each in (await store.load_issuers(context)).values()
    }
    counts = {}
    for folder, wanted in (("c", copies), ("v", revoked)):
        counts[folder] = await _remove_ended(context, folder, context.now - buffer, keep) if wanted else 0
    settings.tidy = {
        "state": "Finished",
        "tidy_cert_store": copies,
        "tidy_revoked_certs": revoked,
        "safety_buffer": buffer,
        "time_started": format_time(context.now),
        "time_finished": format_time(context.now),
        "cert_store_deleted_count": counts["c"],
        "revoked_cert_deleted_count": counts["v"],
        "error": None,
    }
    await context.storage.change([settings.put()])
    return Reply(status=202, warnings=[_TIDIED])


async def _remove_ended(context: Context, folder: str, moment: float, keep: set[str]) -> int:
    names = list(await context.storage.list(folder))
    items = await context.storage.get(*(f"{folder}/{name}" for name in names))
    deletes = [
        (f"{folder}/{name}", item.revision)
        for name, item in zip(names, items, strict=True)
        if item.data is not None and json.loads(item.data)["before"] < moment and name.replace("-", ":") not in keep
    ]
    for start in range(0, len(deletes), 100):
        with contextlib.suppress(Conflict):  # somebody else tidies as well
            await context.storage.change((), deletes[start : start + 100])
    return len(deletes)


async def tidy_status(context: Context, _call: Call) -> Reply:
    """What the last tidying did."""
    return Reply((await store.load_settings(context)).tidy or {"state": "Inactive"})
