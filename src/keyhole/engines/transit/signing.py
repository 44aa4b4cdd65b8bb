"""Sign, verify, HMAC."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.numbers import parse_flag
from keyhole.core.request import Reply
from keyhole.crypto import asymmetric
from keyhole.crypto.asymmetric import HASHES, Scheme
from keyhole.engines import Call, Context
from keyhole.engines.transit import keys
from keyhole.engines.transit.fields import decode, decode_field, encode, items_of, join, run, split, text_of
from keyhole.engines.transit.keys import Key, Material
from keyhole.engines.transit.messages import context_of, reading, version_of, writing

_MAX_SALT = 512


def hash_name(call: Call, *names: str) -> str:
    """The hash that the path or a field names; SHA-256 otherwise."""
    name = call.params.get("algorithm") or ""
    for field in names:
        name = name or text_of(call.data, field)
    name = name or "sha2-256"
    if name not in HASHES:
        raise InvalidRequest(f"unsupported algorithm {name[:40]}", f"use one of {', '.join(HASHES)}")
    return name


def python_hash(name: str) -> str:
    """The name that hashlib has for a hash."""
    return name.replace("sha2-", "sha").replace("-", "_")


_SALT_NUMBERS = {"0": "auto", "-1": "hash"}  # as Vault's clients may say it; they are Go's numbers


def scheme_of(key: Key, call: Call) -> Scheme:
    """How the request wants to sign or verify."""
    data = call.data
    prehashed = parse_flag(data.get("prehashed") or False, "prehashed")
    if prehashed and key.type == "ed25519":
        raise InvalidRequest("Ed25519 signs messages, not digests", "send the message as input")
    algorithm = text_of(data, "signature_algorithm") or "pss"
    if algorithm not in {"pss", "pkcs1v15"}:
        raise InvalidRequest(f"invalid signature algorithm {algorithm[:40]!r}", "use pss or pkcs1v15")
    marshaling = text_of(data, "marshaling_algorithm") or "asn1"
    if marshaling not in {"asn1", "jws"}:
        raise InvalidRequest(f"invalid marshaling type {marshaling[:40]!r}", "use asn1 or jws")
    salt = str(data.get("salt_length") or "auto")
    salt = _SALT_NUMBERS.get(salt, salt)
    if salt not in {"auto", "hash"} and not (salt.isascii() and salt.isdecimal() and len(salt) < 4):
        raise InvalidRequest("salt_length is auto, hash, or a number of bytes")
    if salt.isdecimal() and int(salt) > _MAX_SALT:
        raise InvalidRequest(f"salt_length is more than {_MAX_SALT}")
    name = hash_name(call, "hash_algorithm", "algorithm")
    return Scheme(name, prehashed, algorithm == "pkcs1v15", salt, marshaling == "jws")


def _private(key: Key, material: Material, data: Mapping[str, Any]) -> bytes:
    context = context_of(key, data)
    return asymmetric.derive_ed25519(material.key, context) if key.derived else material.key


def _require_signing(key: Key) -> None:
    if not key.signs:
        raise InvalidRequest(f"key type {key.type} does not support signing")


async def sign(context: Context, call: Call) -> Reply:
    """Signatures."""
    key = await keys.load(context, call.params["name"])
    _require_signing(key)
    scheme = scheme_of(key, call)
    held = await writing(context, key, call.data)

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        message = decode_field(item, "input", "missing input")
        version = key.writing_version(version_of(item))
        private = _private(key, held[version], item)
        signature = asymmetric.sign(private, message, scheme)
        text = base64.urlsafe_b64encode(signature).decode().rstrip("=") if scheme.raw else encode(signature)
        result = {"signature": join(version, text), "key_version": version}
        return {**result, "public_key": asymmetric.public_text(private)} if key.derived else result

    return await run(call.data, work, slow=key.slow)


def _signature(text: str, scheme: Scheme) -> bytes:
    if not scheme.raw:
        return decode(text)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("invalid signature: could not decode base64url") from None


async def verify(context: Context, call: Call) -> Reply:
    """Whether signatures or HMACs are those of their inputs."""
    items = items_of(call.data) or [call.data]
    given = {field for field in ("signature", "hmac") for item in items if item.get(field)}
    if len(given) != 1:
        raise InvalidRequest("provide one of 'signature' or 'hmac'", "and the same one in every item of a batch")
    [field] = given
    key = await keys.load(context, call.params["name"])
    held = await reading(context, key, call.data, field)
    if field == "signature":
        _require_signing(key)
    scheme = scheme_of(key, call) if field == "signature" else Scheme(hash_name(call, "hash_algorithm", "algorithm"))

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        message = decode_field(item, "input", "missing input")
        version, text = split(text_of(item, field, f"missing {field}"), field)
        key.check_reading(version, field)
        if version not in held:
            raise InvalidRequest("the version of the key is not there any more")
        if field == "hmac":
            return {"valid": hmac.compare_digest(_hmac(held[version], message, scheme.hash), decode(text))}
        private = _private(key, held[version], item)
        return {"valid": asymmetric.verify(private, message, _signature(text, scheme), scheme)}

    return await run(call.data, work, slow=key.slow)


def _hmac(material: Material, message: bytes, name: str) -> bytes:
    return hmac.digest(material.hmac, message, python_hash(name))


async def make_hmac(context: Context, call: Call) -> Reply:
    """HMACs, under a key of its own that each version has."""
    key = await keys.load(context, call.params["name"])
    name = hash_name(call, "hash_algorithm", "algorithm")
    held = await writing(context, key, call.data)

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        message = decode_field(item, "input", "missing input for HMAC")
        version = key.writing_version(version_of(item))
        return {"hmac": join(version, encode(_hmac(held[version], message, name)))}

    return await run(call.data, work, slow=False)


async def make_hash(_context: Context, call: Call) -> Reply:
    """The digest of an input."""
    message = decode_field(call.data, "input", "missing input")
    digest = hashlib.new(python_hash(hash_name(call, "algorithm")), message).digest()
    return Reply({"sum": formatted(call, digest, "hex")})


def formatted(call: Call, data: bytes, default: str) -> str:
    """Bytes as the field ``format`` wants them."""
    form = text_of(call.data, "format") or default
    if form not in {"hex", "base64"}:
        raise InvalidRequest(f'unsupported encoding format {form[:40]}; must be "hex" or "base64"')
    return data.hex() if form == "hex" else encode(data)
