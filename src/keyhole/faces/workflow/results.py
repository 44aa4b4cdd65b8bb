"""What a step gave, as it is kept and as later steps see it: bounded, and without anything that is a credential.

What is kept is what counts: a run that goes on after a crash sees what it would have seen without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import BodyTooLarge, InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.faces.workflow.credentials import names_credential
from keyhole.faces.workflow.reference import MISSING, descend
from keyhole.scrub.shapes import finder

_LARGEST = 256 * 1024  # bytes of a body that is kept
_LONGEST = 16 * 1024 * 1024  # of one of which members are kept
_BOUNDS = JsonBounds(items=200_000)
_HEADERS = ("content-type", "etag", "last-modified", "link", "location", "retry-after")
_HEADER = 2000  # characters
_REASON = 500
_DEEPEST = 64


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
        picked = {name: descend(body, path) for name, path in keep.items()}
        body = {name: value for name, value in picked.items() if value is not MISSING}
    clean = scrubbed(body)
    if len(json.dumps(clean, ensure_ascii=False)) > _LARGEST:
        raise BodyTooLarge(
            f"the step gave more than {_LARGEST} bytes", "say what is needed: keep: {NAME: /JSON/POINTER}"
        )
    return clean


def scrubbed(value: Any, depth: int = 0) -> Any:
    """The value with everything masked that has the shape of a credential, or stands in a place called after one."""
    if isinstance(value, str):
        return _masked(value)
    if depth > _DEEPEST:
        raise BodyTooLarge("the step gave something that is nested too deep", "say with keep what is needed")
    if isinstance(value, dict):
        return {
            _masked(name): "*" * min(len(each), 64)
            if isinstance(each, str) and each and names_credential(name)
            else scrubbed(each, depth + 1)
            for name, each in value.items()
        }
    return [scrubbed(each, depth + 1) for each in value] if isinstance(value, list) else value


def _masked(text: str) -> str:
    if len(text) < 8:
        return text
    raw = text.encode(errors="replace")
    matches = finder().find(raw)
    if not matches:
        return text
    clean = bytearray(raw)
    for match in matches:
        clean[match.start : match.end] = b"*" * (match.end - match.start)
    return clean.decode(errors="replace")
