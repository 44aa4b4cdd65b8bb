"""What a step gave, as it is kept and as later steps see it: bounded, and without anything that is a credential.

What is kept is what counts: a run that goes on after a crash sees what it would have seen without one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import BodyTooLarge, InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.faces.workflow.credentials import assigned_in, holds_value, names_credential
from keyhole.faces.workflow.reference import MISSING, descend
from keyhole.scrub.shapes import finder

_LARGEST = 256 * 1024  # bytes of a body that is kept
_LONGEST = 16 * 1024 * 1024  # of one of which members are kept
_BOUNDS = JsonBounds(items=200_000)
_HEADERS = ("content-type", "etag", "last-modified", "link", "location", "retry-after")
_HEADER = 2000  # characters
_REASON = 500
_DEEPEST = 64
_BITS = 512  # of an integer
_UNSAFE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        result: ``ok``, ``failed``, ``waiting`` (for a person) or ``skipped``.
        error: code, where it failed.
        reason, hint: of the failure, for a person.
        status: of HTTP.
        headers: some of the answer's.
        body: what came back.
        doubt: it may have been done although it failed.
        after: seconds after which it makes sense to try again; 0 for not known.
    """

    result: str
    error: str = ""
    reason: str = ""
    hint: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    doubt: bool = False
    after: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """As it is kept, and as references see it."""
        data: dict[str, Any] = {"result": self.result, "body": self.body}
        if self.status:
            data["status"] = self.status
        if self.headers:
            data["headers"] = dict(self.headers)
        for name in ("error", "reason", "hint"):
            if text := getattr(self, name):
                data[name] = scrubbed(text[:_REASON])
        return data | ({"doubt": True} if self.doubt else {})


def read_body(content: bytes, kind: str) -> Any:
    """What is in a body: JSON as its value, other text as text, anything else as nothing.

    Args:
        content: all of it.
        kind: its media type.

    Raises:
        BodyTooLarge: it cannot be looked at.
    """
    if len(content) > _LONGEST:
        raise BodyTooLarge(f"the answer is longer than {_LONGEST} bytes", "ask for less")
    media = kind.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return parse_json(content, _BOUNDS) if content.strip() else None
        except InvalidRequest:
            return _as_text(content)
    textual = media.startswith("text/") or media in {"", "application/xml", "application/x-www-form-urlencoded"}
    return _as_text(content) if textual or media.endswith("+xml") else None


def _as_text(content: bytes) -> str | None:
    try:
        return content.decode().replace("\0", "")
    except UnicodeDecodeError:
        return None


def read_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that are kept; a cookie is a credential, and most others are nobody's business."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower() in _HEADERS:
            found.setdefault(name.lower(), scrubbed(value[:_HEADER]))
    return found


def kept(body: Any, keep: Mapping[str, tuple[str, ...]] | None) -> Any:
    """What is kept of a body, scrubbed. Raises ``BodyTooLarge``."""
    if keep is not None:
        picked = {name: (path, descend(body, path)) for name, path in keep.items()}
        picked = {name: (path, value) for name, (path, value) in picked.items() if value is not MISSING}
        body = {name: value for name, (_, value) in picked.items()}
    if not _is_plain(body):
        raise BodyTooLarge("the step gave what JSON has not, or is nested too deep", "say with keep what is needed")
    if len(json.dumps(body, ensure_ascii=False)) > _LARGEST:
        raise BodyTooLarge(
            f"the step gave more than {_LARGEST} bytes", "say what is needed: keep: {NAME: /JSON/POINTER}"
        )
    if keep is None:
        return scrubbed(body)
    return {name: _scrubbed_at(path, value) for name, (path, value) in picked.items()}


def scrubbed(value: Any, depth: int = 0) -> Any:
    """The value with everything masked that has the shape of a credential, or stands in a place called after one."""
    if isinstance(value, str):
        return _masked(value)
    if depth > _DEEPEST:
        raise BodyTooLarge("the step gave something that is nested too deep", "say with keep what is needed")
    if isinstance(value, dict):
        return {
            _masked(name): _hidden(each, depth + 1) if names_credential(name) else scrubbed(each, depth + 1)
            for name, each in value.items()
        }
    return [scrubbed(each, depth + 1) for each in value] if isinstance(value, list) else value


def _scrubbed_at(path: tuple[str, ...], value: Any) -> Any:
    """What is picked out loses the name under which it stood, and not what that name says of it."""
    return _hidden(value) if any(map(names_credential, path)) else scrubbed(value)


def _hidden(value: Any, depth: int = 0) -> Any:
    """What stands in a place that is called after a credential. Of an object the names of its members say which."""
    if isinstance(value, bool) or value is None or value == "":
        return value
    if depth > _DEEPEST:
        raise BodyTooLarge("the step gave something that is nested too deep", "say with keep what is needed")
    if isinstance(value, dict):
        return {
            _masked(name): (_hidden if names_credential(name) or holds_value(name) else scrubbed)(each, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_hidden(each, depth + 1) for each in value]
    return "*" * min(len(value), 64) if isinstance(value, str) else "*" * 8


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether every JSON reader takes it (RFC 7493): a tool's answer need not have been JSON."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, str):
        return _UNSAFE.search(value) is None
    if isinstance(value, dict):
        return all(_is_plain(name) and _is_plain(each, depth + 1) for name, each in value.items())
    if isinstance(value, list):
        return all(_is_plain(each, depth + 1) for each in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value.bit_length() <= _BITS
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, bool)


def _masked(text: str) -> str:
    if len(text) < 8:
        return text
    raw = text.encode(errors="replace")
    spans = [(match.start, match.end) for match in finder().find(raw, None)]
    if "=" in text or ":" in text:
        spans += assigned_in(raw)
    if not spans:
        return text
    clean = bytearray(raw)
    for start, end in spans:
        clean[start:end] = b"*" * (end - start)
    return clean.decode(errors="replace")
