"""Bring keys that were made elsewhere: under the vault's wrapping key, so that none travels in clear.

What is sent is an ephemeral AES-256 key under RSA-OAEP, and behind it the key under that one (AES-KWP, RFC 5649).
"""

from __future__ import annotations

import asyncio
import os

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest
from keyhole.core.numbers import parse_flag
from keyhole.core.request import Reply
from keyhole.crypto import asymmetric
from keyhole.engines import Call, Context
from keyhole.engines.transit import keys
from keyhole.engines.transit.fields import decode_field, text_of
from keyhole.engines.transit.keys import Material
from keyhole.engines.transit.manage import new_key

_WRAPPING = "w/key"
_KIND = "rsa-4096"
_HASHES = {"SHA224": "sha2-224", "SHA256": "sha2-256", "SHA384": "sha2-384", "SHA512": "sha2-512"}


async def _wrapping_private(context: Context) -> bytes:
    item = await context.storage.get_one(_WRAPPING)
    if item.data is None:
        made = await asyncio.to_thread(asymmetric.generate, _KIND)
        try:
            await context.storage.change([(_WRAPPING, made, item.revision)])
        except Conflict:
            item = await context.storage.get_one(_WRAPPING)  # somebody else made it meanwhile
        else:
            return made
    return bytes(item.data)


async def wrapping_key(context: Context, _call: Call) -> Reply:
    """The public key under which keys are brought; it is made when it is first asked for."""
    private = await _wrapping_private(context)
    return Reply({"public_key": await asyncio.to_thread(asymmetric.public_text, private)})


async def _brought(context: Context, call: Call, kind: str) -> Material:
    """The key that the request brings, checked to be one of this type."""
    name = text_of(call.data, "hash_function") or "SHA256"
    if name not in _HASHES:
        raise InvalidRequest(f"unsupported hash function {name[:40]}", f"use one of {', '.join(_HASHES)}")
    blob = decode_field(call.data, "ciphertext", "missing ciphertext to import")
    private = await _wrapping_private(context)
    return await asyncio.to_thread(_unwrap, private, blob, _HASHES[name], kind)


def _unwrap(private: bytes, blob: bytes, name: str, kind: str) -> Material:
    try:
        key = asymmetric.unwrap(private, blob, name)
    except IntegrityError:
        raise InvalidRequest(
            "the ciphertext does not unwrap", "wrap the key for transit/wrapping_key of this vault, with this hash"
        ) from None
    if kind in asymmetric.KINDS:
        key = asymmetric.normalised(key)
    material = Material(key, key if kind == "hmac" else os.urandom(32))
    keys.check_material(kind, material)
    return material


async def import_key(context: Context, call: Call) -> None:
    """Makes a key of what was brought; it is rotated only where ``allow_rotation`` says so."""
    key = new_key(call.params["name"], call.data)
    rotatable = parse_flag(call.data.get("allow_rotation") or False, "allow_rotation")
    if key.auto_rotate and not rotatable:
        raise InvalidRequest("allow_rotation must be set to true if auto-rotation is enabled")
    if await keys.find(context, key.name) is not None:
        raise InvalidRequest("the import path cannot be used with an existing key", "use import_version")
    material = await _brought(context, call, key.type)
    key.imported = True
    key.rotatable = rotatable
    key.size = len(material.key) if key.type == "hmac" else key.size
    await keys.save_new(context, key, material)


async def import_version(context: Context, call: Call) -> None:
    """Adds a version to a key that was brought."""
    key = await keys.load(context, call.params["name"], "no key found with this name")
    if not key.imported:
        raise InvalidRequest("the import_version endpoint can only be used with an imported key")
    await keys.save_new(context, key, await _brought(context, call, key.type))
