"""The key of the authority, at ``ca``: made here or brought. Its public half is for everybody."""

from __future__ import annotations

import asyncio
import json

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.fields import parse_switch, parse_text
from keyhole.core.numbers import parse_count
from keyhole.core.request import Reply
from keyhole.crypto import ssh
from keyhole.engines import Call, Context

_PATH = "ca"
_KINDS = {"rsa": ssh.RSA, "ed25519": ssh.ED25519}
_CURVES = {int(kind[-3:]): kind for kind in ssh.CURVES}


async def load_private(context: Context) -> bytes:
    """The private key. Raises ``InvalidRequest`` when there is none yet."""
    item = await context.storage.get_one(_PATH)
    if item.data is None:
        raise _none()
    return str(json.loads(item.data)["private"]).encode()


async def load_public(context: Context) -> str:
    """The line of the public key; empty when there is none yet."""
    item = await context.storage.get_one(_PATH)
    return "" if item.data is None else json.loads(item.data)["public"]


async def configure(context: Context, call: Call) -> Reply | None:
    """Makes the key pair, or takes one that was made elsewhere; never in the place of another."""
    private, public = (parse_text(call.data.get(name), name).strip() for name in ("private_key", "public_key"))
    asked = call.data.get("generate_signing_key")
    said = asked is not None and asked != ""
    generate = parse_switch(asked, "generate_signing_key") if said else not (private or public)
    item = await context.storage.get_one(_PATH)
    if item.data is not None:
        raise InvalidRequest("keys are already configured; delete them before reconfiguring")
    if generate:
        if private or public:
            raise InvalidRequest("public_key and private_key must not be set when generate_signing_key is set to true")
        key = await asyncio.to_thread(ssh.generate, *_kind(call))
    else:
        key = await asyncio.to_thread(_brought, private, public)
    line = await asyncio.to_thread(ssh.public_of, key)
    data = json.dumps({"private": key.decode(), "public": line}).encode()
    await context.storage.change([(_PATH, data, item.revision)])
    return Reply({"public_key": f"{line}\n"}) if generate else None


def _kind(call: Call) -> tuple[str, int]:
    """Type and bits of a key to be made, from the names of SSH or the families."""
    kind = parse_text(call.data.get("key_type"), "key_type") or ssh.RSA
    bits = parse_count(call.data.get("key_bits") or 0, "key_bits")
    if kind in {"ec", "ecdsa"}:
        if bits and bits not in _CURVES:
            raise InvalidRequest("key_bits of ec is 256, 384 or 521")
        return _CURVES[bits or 256], 0
    kind = _KINDS.get(kind, kind)
    if kind not in ssh.KINDS:
        raise InvalidRequest(f"unknown key_type {kind[:40]!r}", f"use {', '.join(ssh.KINDS)}")
    if kind == ssh.RSA and bits and bits not in ssh.RSA_SIZES:
        raise InvalidRequest("key_bits of an RSA key is 2048, 3072 or 4096")
    return kind, bits if kind == ssh.RSA else 0


def _brought(private: str, public: str) -> bytes:
    if not private:
        raise InvalidRequest("missing private_key", "send both, or generate_signing_key")
    if not public:
        raise InvalidRequest("missing public_key", "send both, or generate_signing_key")
    key = ssh.normalised(private.encode())
    if ssh.public_of(key) != ssh.read_public(public).text:
        raise InvalidRequest("public_key is not the one of private_key", "send a pair")
    return key


async def read(context: Context, _call: Call) -> Reply:
    """The public key."""
    line = await load_public(context)
    if not line:
        raise _none()
    return Reply({"public_key": f"{line}\n"})


async def read_raw(context: Context, _call: Call) -> Reply:
    """The public key as a file, as ``TrustedUserCAKeys`` of a server takes it."""
    line = await load_public(context)
    if not line:
        raise NotFound("there is no key yet")
    return Reply(raw=f"{line}\n".encode(), content_type="text/plain")


async def delete(context: Context, _call: Call) -> None:
    """Removes the key pair. What it signed stays good where its public key is trusted."""
    item = await context.storage.get_one(_PATH)
    if item.data is not None:
        await context.storage.change((), [(_PATH, item.revision)])


def _none() -> InvalidRequest:
    return InvalidRequest("keys haven't been configured yet", "write config/ca")
