"""One-time passwords (RFC 6238), as Vault's engine of that name: codes of seeds that it keeps, and which one is right.

``k/NAME`` holds a seed with its settings and the period of the last code that was accepted. A code is right once: what
is not younger than that one is refused, on every node and after a restart.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_name
from keyhole.core.request import Operation, Reply
from keyhole.core.totp import ALGORITHMS, Enrolment, Totp, decode_seed, read_uri, write_uri
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Field, Route

_DEFAULT_PERIOD = 30
_LONGEST_PERIOD = 24 * 3600
_DEFAULT_SIZE = 20  # bytes, the length of a SHA-1 digest: RFC 4226, section 4
_LONGEST_KEY = 512
_MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class _Key:
    """A seed as it is stored.

    Attributes:
        skew: periods before and after the current one of which a code counts too.
        used: period of the last code that was accepted; -1 for none.
        revision: of the entry; what a write must expect.
    """

    enrolment: Enrolment
    skew: int
    used: int = -1
    revision: int = 0

    def encode(self) -> bytes:
        totp = self.enrolment.totp
        fields = {
            "key": base64.b64encode(totp.key).decode(),
            "digits": totp.digits,
            "period": totp.period,
            "algorithm": totp.algorithm,
            "issuer": self.enrolment.issuer,
            "account": self.enrolment.account,
            "skew": self.skew,
            "used": self.used,
        }
        return json.dumps(fields).encode()


def _path(params: Mapping[str, str]) -> str:
    return f"k/{parse_name(params['name'])}"


async def _load(context: Context, call: Call) -> _Key | None:
    item = await context.storage.get_one(_path(call.params))
    if item.data is None:
        return None
    data = json.loads(item.data)
    totp = Totp(base64.b64decode(data["key"]), data["digits"], data["period"], data["algorithm"])
    return _Key(Enrolment(totp, data["issuer"], data["account"]), data["skew"], data["used"], item.revision)


async def _load_known(context: Context, call: Call) -> _Key:
    key = await _load(context, call)
    if key is None:
        raise InvalidRequest(f"unknown key: {call.params['name']}", "list keys/ shows those that there are")
    return key


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    text = "" if value is None else value
    if not isinstance(text, str) or len(text) > 4096:
        raise InvalidRequest(f"{name} is a text")
    return text


def _label(data: Mapping[str, Any], name: str) -> str:
    text = _text(data, name)
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise InvalidRequest(f"{name} is at most {_MAX_TEXT} printable characters")
    return text


def _generated(data: Mapping[str, Any]) -> Enrolment:
    for name in ("url", "key"):
        if _text(data, name):
            raise InvalidRequest(f"a {name} should not be passed if generate is true", f"leave out {name}")
    issuer, account = _label(data, "issuer"), _label(data, "account_name")
    if not issuer:
        raise InvalidRequest("the issuer value is required")
    if not account:
        raise InvalidRequest("the account_name value is required")
    size = parse_count(data.get("key_size", _DEFAULT_SIZE), "key_size", least=1, most=_LONGEST_KEY)
    return Enrolment(_totp(data, os.urandom(size)), issuer, account)


def _given(data: Mapping[str, Any]) -> Enrolment:
    url = _text(data, "url")
    if url:
        try:
            found = read_uri(url)
        except ValueError:
            raise InvalidRequest("an error occurred while parsing url string", "send an otpauth://totp/ URI") from None
        fields = {"digits": found.totp.digits, "period": found.totp.period, "algorithm": found.totp.algorithm}
        labels = {"issuer": found.issuer, "account_name": found.account}
        return Enrolment(_totp(fields, found.totp.key), _label(labels, "issuer"), _label(labels, "account_name"))
    text = _text(data, "key")
    if not text:
        raise InvalidRequest("the key value is required", "send key, url, or generate")
    try:
        key = decode_seed(text)
    except ValueError:
        raise InvalidRequest("invalid key value: it is not base32", "send the seed in base32") from None
    return Enrolment(_totp(data, key), _label(data, "issuer"), _label(data, "account_name"))


def _totp(data: Mapping[str, Any], key: bytes) -> Totp:
    digits = parse_count(data.get("digits", 6), "digits")
    if digits not in {6, 8}:
        raise InvalidRequest("the digits value can only be 6 or 8")
    period = parse_duration(data.get("period", _DEFAULT_PERIOD), name="period")
    if not 1 <= period <= _LONGEST_PERIOD:
        raise InvalidRequest("the period value must be greater than zero", "and at most a day")
    algorithm = _text(data, "algorithm").upper() or "SHA1"
    if algorithm not in ALGORITHMS:
        raise InvalidRequest("the algorithm value is not valid", f"use {', '.join(ALGORITHMS)}")
    if len(key) > _LONGEST_KEY:
        raise InvalidRequest(f"a seed has at most {_LONGEST_KEY} bytes")
    return Totp(key, digits, period, algorithm)


async def create(context: Context, call: Call) -> Reply | None:
    """A new seed, made here or elsewhere. One that is made here is shown once, when ``exported`` allows it."""
    data = call.data
    generate = parse_flag(data.get("generate", False), "generate")
    skew = parse_count(data.get("skew", 1), "skew")
    if skew not in {0, 1}:
        raise InvalidRequest("the skew value can only be 0 or 1")
    size = parse_count(data.get("qr_size", 200), "qr_size", most=10_000)
    exported = parse_flag(data.get("exported", True), "exported")
    enrolment = _generated(data) if generate else _given(data)
    item = await context.storage.get_one(_path(call.params))
    key = _Key(enrolment, skew)
    await context.storage.change([(_path(call.params), key.encode(), item.revision)])
    if not (generate and exported):
        return None
    shown: dict[str, Any] = {"url": Secret(json.dumps(write_uri(enrolment)))}
    # Vault draws the URL as a picture; programs for that are everywhere, and the field stays what clients expect.
    return Reply(shown if size == 0 else {"barcode": "", **shown})


async def read(context: Context, call: Call) -> Reply:
    """The settings of a seed, without the seed."""
    key = await _load(context, call)
    if key is None:
        raise NotFound(f"there is no key {call.params['name']!r}")
    enrolment = key.enrolment
    return Reply(
        {
            "account_name": enrolment.account,
            "algorithm": enrolment.totp.algorithm,
            "digits": enrolment.totp.digits,
            "issuer": enrolment.issuer,
            "period": enrolment.totp.period,
        }
    )


async def delete(context: Context, call: Call) -> None:
    """Removes a seed."""
    key = await _load(context, call)
    if key is not None:
        await context.storage.change((), [(_path(call.params), key.revision)])


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of seeds."""
    keys = await context.storage.list("k")
    if not keys:
        raise NotFound("there are no keys here")
    return Reply({"keys": list(keys)})


async def generate_code(context: Context, call: Call) -> Reply:
    """The code of this moment."""
    totp = (await _load_known(context, call)).enrolment.totp
    return Reply({"code": Secret(json.dumps(totp.code(totp.step(context.now))))})


async def validate(context: Context, call: Call) -> Reply:
    """Is a code right? It is so once."""
    key = await _load_known(context, call)
    code = call.data.get("code")
    if not isinstance(code, str) or not code:
        raise InvalidRequest("the code value is required", 'send {"code": "123456"}')
    totp, skew = key.enrolment.totp, key.skew
    now = totp.step(context.now)
    # Every code that counts is compared, so that the time does not tell which one came near.
    fits = [
        step
        for step in range(max(now - skew, 0), now + skew + 1)
        if hmac.compare_digest(totp.code(step).encode(), code.encode("utf-8", "replace"))
    ]
    if not fits:
        return Reply({"valid": False})
    fresh = [step for step in fits if step > key.used]
    if not fresh:
        raise InvalidRequest("code already used; wait until the next time period")
    used = _Key(key.enrolment, skew, fresh[0], key.revision)
    await context.storage.change([(_path(call.params), used.encode(), key.revision)])
    return Reply({"valid": True})


ENGINE = Engine(
    "totp",
    (
        Route("keys", {Operation.LIST: list_names}, help="Names of seeds."),
        Route(
            "keys/{name}",
            {Operation.CREATE: create, Operation.READ: read, Operation.DELETE: delete},
            fields=(
                Field("generate", "make the seed here", "boolean"),
                Field("exported", "show a seed that is made here, once, as a URL", "boolean"),
                Field("url", "an otpauth:// URI to take the seed and all settings from", "string"),
                Field("key", "the seed in base32", "string"),
                Field("issuer", "whose service it is", "string"),
                Field("account_name", "whose account it is", "string"),
                Field("algorithm", "SHA1, SHA256 or SHA512", "string"),
                Field("digits", "6 or 8", "integer"),
                Field("period", "seconds for which a code is the right one", "duration"),
                Field("skew", "1: codes of the period before and after count too", "integer"),
                Field("key_size", "bytes of a seed that is made here", "integer"),
                Field("qr_size", "0: leave the field barcode out; no picture is drawn", "integer"),
            ),
            help="Make or bring a seed, see its settings, remove it.",
        ),
        Route(
            "code/{name}",
            {Operation.READ: generate_code, Operation.CREATE: validate},
            fields=(Field("code", "the code to be judged", "string"),),
            help="The code of this moment, or whether a code is right.",
            source="code",
        ),
    ),
)
