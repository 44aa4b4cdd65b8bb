"""What a server may send: lines of bounded length, of JSON of bounded depth, and so many that nobody asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.shared.message import SessionMessage

from keyhole.core.errors import BodyTooLarge


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Bounds on one server.

    Attributes:
        line: bytes of a message.
        rate: messages a second that nobody asked for, such as notifications; what comes on top is dropped.
        burst: of them at once.
        parts: blocks, messages or other members of a list in one answer, each of which costs more than its bytes.
        bad: messages that are none, after which the connection is given up.
    """

    line: int = 8 * 1024 * 1024
    rate: float = 100.0
    burst: float = 200.0
    parts: int = 10_000
    bad: int = 100


class Gate:
    """Messages out of bytes.

    Args:
        limits: bounds.
        clock: seconds.
    """

    def __init__(self, limits: GateLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or GateLimits()
        self._clock = clock
        self._held = bytearray()
        self._budget = self._limits.burst
        self._at = clock()
        self._bad = 0
        self.dropped = 0

    def feed(self, data: bytes) -> Iterator[SessionMessage]:
        """The messages that are whole now. Raises ``BodyTooLarge``: the connection is to be given up."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = bytes(self._held) + line if self._held else line
            self._held.clear()
            self._require_short(len(whole))
            if whole.strip() and (message := self.message(whole)) is not None:
                yield message
        self._require_short(len(self._held) + len(rest))
        self._held += rest

    def message(self, line: bytes) -> SessionMessage | None:
        """One message; ``None`` for one that is none, or one too many that nobody asked for."""
        if b'"id"' not in line and not self._has_budget():
            self.dropped += 1
            return None
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._bad += 1
            self.dropped += 1
            if self._bad > self._limits.bad:
                raise BodyTooLarge("the server sends what are no messages") from None
            return None
        if isinstance(message, types.JSONRPCNotification | types.JSONRPCRequest) and not self._admits():
            self.dropped += 1
            return None
        if isinstance(message, types.JSONRPCResponse) and self._is_long(message.result):
            said = types.ErrorData(code=types.INTERNAL_ERROR, message="the answer of the server has too many parts")
            return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=message.id, error=said))
        return SessionMessage(message)

    def _is_long(self, result: Mapping[str, Any]) -> bool:
        return any(isinstance(each, list) and len(each) > self._limits.parts for each in result.values())

    def _admits(self) -> bool:
        if not self._has_budget():
            return False
        self._budget -= 1
        return True

    def _has_budget(self) -> bool:
        now = self._clock()
        self._budget = min(self._limits.burst, self._budget + (now - self._at) * self._limits.rate)
        self._at = now
        return self._budget >= 1

    def _require_short(self, size: int) -> None:
        if size > self._limits.line:
            raise BodyTooLarge(f"the server sends a message of more than {self._limits.line} bytes")
