"""Encrypt, decrypt, rewrap, and data keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.numbers import parse_count
from keyhole.core.request import Operation, Reply
from keyhole.crypto import asymmetric, message
from keyhole.crypto.aead import OVERHEAD
from keyhole.engines import Call, Context
from keyhole.engines.transit import keys
from keyhole.engines.transit.fields import (
    decode,
    decode_field,
    encode,
    hidden,
    items_of,
    join,
    run,
    split,
    text_of,
)
from keyhole.engines.transit.keys import Key, Material
from keyhole.engines.transit.manage import create_key

_CIPHERTEXT = "ciphertext"
_BITS = (128, 256, 512)
_NO_CONTEXT = (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, "
    "per-request information must be included in order to perform operations with the key"
)


def context_of(key: Key, data: Mapping[str, Any]) -> bytes:
    """The context that a derived key needs."""
    context = decode_field(data, "context")
    if key.derived and not context:
        raise InvalidRequest(_NO_CONTEXT, "send context in base64")
    return context if key.derived else b""


def version_of(data: Mapping[str, Any]) -> int:
    """The version that was asked for; 0 for the latest."""
    return parse_count(data.get("key_version") or 0, "key_version", most=10**9)


async def writing(context: Context, key: Key, data: Mapping[str, Any]) -> dict[int, Material]:
    """Material of the versions that a request, or the items of a batch, want to write with."""
    wanted = {key.latest}
    for item in [data, *(items_of(data) or [])]:
        try:
            wanted.add(key.writing_version(version_of(item)))
        except InvalidRequest:
            continue  # said of the one item that has it
    return await keys.material(context, key, sorted(wanted))


async def reading(context: Context, key: Key, data: Mapping[str, Any], field: str) -> dict[int, Material]:
    """Material of the versions that what the request carries was made with."""
    texts = [item[field] for item in [data, *(items_of(data) or [])] if isinstance(item.get(field), str)]
    return await keys.material(context, key, keys.readable(key, texts, field))


def seal(key: Key, held: Mapping[int, Material], data: Mapping[str, Any], plaintext: bytes) -> dict[str, Any]:
    """The ciphertext of a plaintext and the version that made it."""
    if data.get("nonce"):
        raise InvalidRequest("provided nonce not allowed for this key", "leave it out: it is chosen for you")
    version = key.writing_version(version_of(data))
    used, associated, context = held[version].key, decode_field(data, "associated_data"), context_of(key, data)
    if key.type in asymmetric.RSA_BITS:
        if associated:
            raise InvalidRequest(f"associated data is not supported by keys of the type {key.type}")
        sealed = asymmetric.encrypt(used, plaintext)
    elif key.derived:
        sealed = message.seal_derived(key.type, used, context, plaintext, associated, same=key.convergent)
    else:
        sealed = message.seal(key.type, used, plaintext, associated)
    return {_CIPHERTEXT: join(version, encode(sealed)), "key_version": version}


def open_sealed(key: Key, held: Mapping[int, Material], data: Mapping[str, Any]) -> bytes:
    """The plaintext of a ciphertext."""
    version, text = split(text_of(data, _CIPHERTEXT, "missing ciphertext to decrypt"), _CIPHERTEXT)
    key.check_reading(version, _CIPHERTEXT)
    if version not in held:
        raise InvalidRequest("the version of the key is not there any more")
    context, associated = context_of(key, data), decode_field(data, "associated_data")
    try:
        blob = decode(text)
    except InvalidRequest:
        raise InvalidRequest("invalid ciphertext: could not decode base64") from None
    used = held[version].key
    try:
        if key.type in asymmetric.RSA_BITS:
            return asymmetric.decrypt(used, blob)
        if len(blob) < OVERHEAD:
            raise InvalidRequest("invalid ciphertext length")
        if key.derived:
            return message.open_derived(key.type, used, context, blob, associated)
        return message.open_message(key.type, used, blob, associated)
    except IntegrityError:
        raise InvalidRequest(
            "cipher: message authentication failed", "it was changed, or the key, context or associated data is another"
        ) from None


def _require_encrypting(key: Key) -> None:
    if not key.encrypts:
        raise InvalidRequest(f"message encryption not supported for key type {key.type}")


async def exists(context: Context, params: Mapping[str, str]) -> bool:
    """Is there such a key? Encrypting with one that is not there makes it, for who has ``create``."""
    return await keys.is_there(context, params["name"])


async def encrypt(context: Context, call: Call) -> Reply:
    """Ciphertexts; makes the key when it is not there."""
    name = call.params["name"]
    if items_of(call.data) is None:
        decode_field(call.data, "plaintext", "missing plaintext to encrypt")
    key = await keys.find(context, name)
    call.require_new(stored=key is not None)
    if key is None:
        if call.operation is not Operation.CREATE:
            raise InvalidRequest("encryption key not found", "make it first: POST keys/NAME")
        await create_key(context, name, {"type": call.data.get("type"), "derived": bool(call.data.get("context"))})
        key = await keys.load(context, name)
    _require_encrypting(key)
    held = await writing(context, key, call.data)

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        return seal(key, held, item, decode_field(item, "plaintext", "missing plaintext to encrypt"))

    return await run(call.data, work, slow=key.slow)


async def decrypt(context: Context, call: Call) -> Reply:
    """Plaintexts."""
    key = await keys.load(context, call.params["name"])
    _require_encrypting(key)
    held = await reading(context, key, call.data, _CIPHERTEXT)

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        return {"plaintext": hidden(encode(open_sealed(key, held, item)))}

    return await run(call.data, work, slow=key.slow)


async def rewrap(context: Context, call: Call) -> Reply:
    """Ciphertexts under the latest version; nobody sees the plaintext."""
    key = await keys.load(context, call.params["name"])
    _require_encrypting(key)
    held = await reading(context, key, call.data, _CIPHERTEXT)
    held |= await writing(context, key, call.data)

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        return seal(key, held, item, open_sealed(key, held, item))

    return await run(call.data, work, slow=key.slow)


async def data_key(context: Context, call: Call) -> Reply:
    """A random key under the named key; in clear too, where the path says so."""
    if call.params["form"] not in {"plaintext", "wrapped"}:
        raise InvalidRequest("Invalid path, must be 'plaintext' or 'wrapped'")
    bits = parse_count(call.data.get("bits") or 256, "bits")
    if bits not in _BITS:
        raise InvalidRequest("invalid bit length", "use 128, 256 or 512")
    key = await keys.load(context, call.params["name"])
    _require_encrypting(key)
    held = await writing(context, key, call.data)
    made = os.urandom(bits // 8)
    data = await asyncio.to_thread(seal, key, held, call.data, made)
    return Reply({**data, "plaintext": hidden(encode(made))} if call.params["form"] == "plaintext" else data)
