"""``sys/tools``: random bytes and hashes, for who has nothing better at hand. Nothing that is sent is kept."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os

from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Field, Route

_MOST = 128 * 1024  # bytes of one answer, as in Vault
_USUAL = 32
_SOURCES = ("platform", "all")  # no seal of ours gives random bytes, so all there is is the system's
_HASHES = {f"{family}-{bits}": name for family, bits, name in (
    ("sha2", 224, "sha224"),
    ("sha2", 256, "sha256"),
    ("sha2", 384, "sha384"),
    ("sha2", 512, "sha512"),
    ("sha3", 224, "sha3_224"),
    ("sha3", 256, "sha3_256"),
    ("sha3", 384, "sha3_384"),
    ("sha3", 512, "sha3_512"),
)}  # fmt: skip


async def _random(_context: Context, call: Call) -> Reply:
    first, second = call.params.get("first", ""), call.params.get("second", "")
    source = first if first and not first.isdecimal() else str(call.data.get("source") or "platform")
    if source not in _SOURCES:
        known = (
            "the seal of this vault gives no random bytes"
            if source == "seal"
            else f"unsupported entropy source {source[:40]!r}"
        )
        raise InvalidRequest(known, f"use one of {', '.join(_SOURCES)}")
    asked = second or (first if first.isdecimal() else call.data.get("bytes", _USUAL))
    count = _count(asked)
    return Reply({"random_bytes": Secret(json.dumps(_formatted(call, os.urandom(count), "base64")))})


def _count(asked: object) -> int:
    text = "" if isinstance(asked, bool) else str(asked)
    if not (text.isascii() and text.lstrip("-").isdecimal() and len(text) <= 18):
        raise InvalidRequest(f"error parsing url-supplied byte count: {text[:40]!r}", "send a whole number")
    if int(text) < 1:
        raise InvalidRequest('"bytes" cannot be less than 1')
    if int(text) > _MOST:
        raise InvalidRequest(f'"bytes" should be less than {_MOST}', "ask several times")
    return int(text)


async def _hash(_context: Context, call: Call) -> Reply:
    algorithm = call.params.get("algorithm") or str(call.data.get("algorithm") or "sha2-256")
    if algorithm not in _HASHES:
        raise InvalidRequest(f"unsupported algorithm {algorithm[:40]}", f"use one of {', '.join(_HASHES)}")
    given = call.data.get("input", "")
    try:
        if not isinstance(given, str):
            raise ValueError  # noqa: TRY004, TRY301 - one place says what is wrong
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("unable to decode input as base64", "send standard base64") from None
    return Reply({"sum": _formatted(call, hashlib.new(_HASHES[algorithm], data).digest(), "hex")})


def _formatted(call: Call, data: bytes, usual: str) -> str:
    form = str(call.data.get("format") or usual)
    if form not in {"hex", "base64"}:
        raise InvalidRequest(f'unsupported encoding format {form[:40]}; must be "hex" or "base64"')
    return data.hex() if form == "hex" else base64.b64encode(data).decode()


def routes() -> tuple[Route, ...]:
    """The table."""
    form = Field("format", "hex or base64")
    random = (Field("bytes", f"how many, {_USUAL} when it is not said"), Field("source", "platform or all"), form)
    text = (Field("input", "base64"), Field("algorithm", "sha2-224, -256, -384, -512 or sha3-…"), form)
    return (
        *(
            Route(pattern, {Operation.CREATE: _random}, fields=random, help="Random bytes.")
            for pattern in ("tools/random", "tools/random/{first}", "tools/random/{first}/{second}")
        ),
        *(
            Route(pattern, {Operation.CREATE: _hash}, fields=text, help="The hash of an input.")
            for pattern in ("tools/hash", "tools/hash/{algorithm}")
        ),
    )
