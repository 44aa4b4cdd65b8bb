"""What requests to transit have in common: base64, versions in what they carry, and batches. Pure."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.numbers import parse_count
from keyhole.core.request import Reply
from keyhole.core.value import Secret

MAX_BATCH = 1000
MAX_INPUT = 4 * 2**20  # bytes of one plaintext, input or ciphertext, in base64
_PREFIX = "vault:v"
_ALPHABET = re.compile(r"[A-Za-z0-9+/\r\n]*")
_INLINE = 16384  # bytes that are worked on without a thread


class Versioned(NamedTuple):
    """``vault:vN:…`` in its parts."""

    version: int
    text: str


def text_of(data: Mapping[str, Any], name: str, missing: str = "") -> str:
    """A field of text; empty where there is none, unless ``missing`` says what is wrong with that."""
    value = data.get(name)
    if value is None:
        if missing:
            raise InvalidRequest(missing, f"send {name}")
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is a text")
    if len(value) > MAX_INPUT:
        raise InvalidRequest(f"{name} is longer than {MAX_INPUT:,} characters", "encrypt a data key instead")
    return value


def decode(text: str) -> bytes:
    """Bytes from standard base64 (RFC 4648, section 4). Raises ``InvalidRequest`` in the words of Vault."""
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        match = _ALPHABET.match(text)
        at = match.end() if match else 0
        raise InvalidRequest(f"illegal base64 data at input byte {at}", "send standard base64") from None


def decode_field(data: Mapping[str, Any], name: str, missing: str = "") -> bytes:
    """Bytes of a field in base64."""
    return decode(text_of(data, name, missing))


def encode(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def hidden(value: str | Mapping[str, str]) -> Secret:
    """A value that only who asked for it sees."""
    return Secret(json.dumps(value))


def split(text: str, what: str) -> Versioned:
    """The parts of a ciphertext, signature or HMAC.

    Args:
        text: as Keyhole or Vault wrote it.
        what: its name in errors.
    """
    if not text.startswith(_PREFIX):
        raise InvalidRequest(f"invalid {what}: no prefix", "send it as it was answered, with vault:vN:")
    number, colon, rest = text[len(_PREFIX) :].partition(":")
    if not colon:
        raise InvalidRequest(f"invalid {what}: wrong number of fields")
    if not (number.isascii() and number.isdecimal() and len(number) <= 9):
        raise InvalidRequest(f"invalid {what}: version number could not be decoded")
    return Versioned(int(number), rest)


def join(version: int, text: str) -> str:
    """``vault:vN:…``."""
    return f"{_PREFIX}{version}:{text}"


def items_of(data: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The items of a batch; ``None`` when the request is a single one."""
    batch = data.get("batch_input")
    if batch is None:
        return None
    if not isinstance(batch, list) or not all(isinstance(item, dict) for item in batch):
        raise InvalidRequest("batch_input is a list of objects")
    if not batch:
        raise InvalidRequest("missing batch input to process")
    if len(batch) > MAX_BATCH:
        raise InvalidRequest(f"batch_input has more than {MAX_BATCH:,} items", "send several requests")
    return batch


async def run(data: Mapping[str, Any], work: Callable[[Mapping[str, Any]], dict[str, Any]], *, slow: bool) -> Reply:
    """Do the work on a single request, or on each item of a batch.

    A batch of which some items fail answers 400 with every result, unless ``partial_failure_response_code`` says
    otherwise and some succeeded.

    Args:
        data: of the request.
        work: from the fields of one item to its result.
        slow: a single item is worth a thread.
    """
    items = items_of(data)
    if items is None:
        fast = not slow and sum(len(value) for value in data.values() if isinstance(value, str)) < _INLINE
        return Reply(work(data) if fast else await asyncio.to_thread(work, data))
    results = await asyncio.to_thread(_each, items, work)
    failed = sum("error" in result for result in results)
    reply = Reply({"batch_results": results})
    if failed:
        reply.status = InvalidRequest.status
        if "partial_failure_response_code" in data and failed < len(results):
            name = "partial_failure_response_code"
            reply.status = parse_count(data[name], name, least=200, most=599)
    return reply


def _each(items: list[Mapping[str, Any]], work: Callable[[Mapping[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    results = []
    for item in items:
        try:
            result = work(item)
        except KeyholeError as error:
            result = {"error": error.reason}
        if isinstance(item.get("reference"), str):
            result["reference"] = item["reference"]
        results.append(result)
    return results
