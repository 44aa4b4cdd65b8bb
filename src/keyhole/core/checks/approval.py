"""Approval by a person: which requests need it, and what exactly is approved. Pure.

What is approved is a digest over the whole request as the client sent it: method, scheme, host, port, canonical target,
its headers and its body, and the service with the secret that is lent. A request that differs in one byte of these is
another request. Left out are headers that frame the message (the wire has taken those away already) and the ones that
clients make anew for each attempt and that change nothing of what is asked: see ``VOLATILE``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.checks.documents import FORM
from keyhole.core.checks.scope import EVERYTHING, Scope
from keyhole.core.checks.urlencoded import read_parameters
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.lease import parse_duration
from keyhole.core.message import Headers
from keyhole.core.numbers import parse_flag
from keyhole.core.strict_json import JsonBounds, parse_json

BODY_LIMIT = 1024 * 1024  # bytes of a body that can be approved
TTL = 3600  # seconds for which a request waits, and an approval is good
_LONGEST = 7 * 86_400
_LONGEST_WAIT = 600
_SHAPE = 40  # members of a body that an approver is shown
_MAGIC = b"keyhole approval 1"
_KNOWN = frozenset({"required", "for", "wait", "ttl", "preview"})
_BOUNDS = JsonBounds()
VOLATILE = frozenset(
    {
        b"date",
        b"idempotency-key",
        b"x-request-id",
        b"x-client-request-id",
        b"x-correlation-id",
        b"x-stainless-retry-count",
        b"x-stainless-timeout",
        b"amz-sdk-invocation-id",
        b"amz-sdk-request",
        b"traceparent",
        b"tracestate",
        b"baggage",
        b"sentry-trace",
        b"content-length",  # the body itself is part of what is approved
    }
)
# Made anew where we sign.
_SIGNATURE = frozenset({b"authorization", b"x-amz-date", b"x-amz-security-token", b"x-ms-date"})


@dataclass(frozen=True, slots=True)
class Approval:
    """Which requests of a service a person has to approve.

    Attributes:
        scope: those.
        wait: seconds for which a call is held for the answer; 0 to refuse it at once.
        ttl: seconds for which a request waits for its answer, and an approval for its call.
        preview: the approver is shown the beginning of the body.
    """

    scope: Scope = EVERYTHING
    wait: int = 0
    ttl: int = TTL
    preview: bool = False

    @classmethod
    def from_data(cls, data: Any) -> Approval | None:
        """Read ``approval`` of a service; ``None`` where nothing is required. Raises ``InvalidRequest``."""
        if data is True:
            return cls()
        if not isinstance(data, Mapping) or data.keys() - _KNOWN:
            raise InvalidRequest(f"approval has {', '.join(sorted(_KNOWN))}", '{"required": true, "wait": 120}')
        if not parse_flag(data.get("required", True), "required"):
            return None
        wait = parse_duration(data.get("wait") or 0, name="wait")
        ttl = parse_duration(data.get("ttl") or TTL, name="ttl")
        if wait > _LONGEST_WAIT or ttl > _LONGEST or wait > ttl:
            raise InvalidRequest(f"wait is at most {_LONGEST_WAIT} seconds, and ttl 7 days and not less than wait")
        return cls(Scope.from_data(data.get("for")), wait, ttl, parse_flag(data.get("preview", False), "preview"))

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        return {
            "required": True,
            **({"for": self.scope.as_data()} if self.scope.names else {}),
            **({"wait": self.wait} if self.wait else {}),
            **({"ttl": self.ttl} if self.ttl != TTL else {}),
            **({"preview": True} if self.preview else {}),
        }

    def describe(self) -> str:
        """In words."""
        held = f", held for {self.wait} s" if self.wait else ""
        return f"approval by a person: {self.scope}{held}"


@dataclass(frozen=True, slots=True)
class Subject:
    """The digests of one request, in hex: of all of it, of it without headers and body, and of its path alone."""

    exact: str
    target: str
    path: str

    @classmethod
    def of(
        cls,
        bound: Iterable[str],
        method: str,
        origin: str,
        target: bytes,
        headers: Headers,
        content: bytes,
        *,
        signed: bool = False,
    ) -> Subject:
        """The digests of a request.

        Args:
            bound: what it goes through: org, service, secret.
            method: as sent.
            origin: scheme, host and port.
            target: canonical.
            headers: end-to-end headers as the client sent them.
            content: the whole body.
            signed: the request is signed again on its way, so that the client's own signature does not count.
        """
        line = [*(text.encode() for text in (*bound, method, origin))]
        left_out = VOLATILE | _SIGNATURE if signed else VOLATILE
        kept = [part for pair in headers if pair[0] not in left_out for part in pair]
        return cls(
            _digest(b"exact", *line, target, *kept, hashlib.sha256(content).digest()),
            _digest(b"target", *line, target),
            _digest(b"path", *line, target.partition(b"?")[0]),
        )

    @classmethod
    def of_tool(cls, bound: Iterable[str], arguments: bytes) -> Subject:
        """The digests of a use of a tool; without its arguments there is no path to tell apart.

        Args:
            bound: what it goes to: org, server, its binding, tool, and what was approved of that.
            arguments: in one form.
        """
        line = [text.encode() for text in bound]
        without = _digest(b"tool", *line)
        return cls(_digest(b"tool call", *line, hashlib.sha256(arguments).digest()), without, without)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256(_MAGIC)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def shape(kind: str, content: bytes) -> list[str]:
    """What a body consists of, as names without values: the members of a JSON object, the fields of a form."""
    names: list[str] = []
    try:
        if kind == FORM:
            names = [each.name for each in read_parameters(content.decode("ascii"))[0].parameters]
        else:  # clients do not always say that it is JSON
            _collect(parse_json(content, _BOUNDS), "", names)
    except (KeyholeError, UnicodeDecodeError):
        return []
    return [name[:80] for name in dict.fromkeys(names)][:_SHAPE]


def _collect(value: Any, above: str, names: list[str]) -> None:
    if len(names) > _SHAPE or above.count("/") > 3:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            names.append(f"{above}/{name}")
            _collect(inner, f"{above}/{name}", names)
    elif isinstance(value, list) and value:
        names.append(f"{above}/* ({len(value)})")
        _collect(value[0], f"{above}/*", names)


def preview(content: bytes, limit: int = 2048) -> str:
    """The beginning of a body as text, for a person."""
    text = json.dumps(content[:limit].decode("utf-8", "replace"), ensure_ascii=False)[1:-1]
    return text + ("…" if len(content) > limit else "")
