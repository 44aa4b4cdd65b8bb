"""Follows a stream of messages that passes by: where they end, and how many of each kind there are. Keeps none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from keyhole.core.errors import BadRequestFraming
from keyhole.net.postgres.messages import MAX_MESSAGE

_HEAD = 5  # bytes of letter and length


class Frames:
    """One direction of a session after its login.

    Args:
        known: letters that may begin a message.

    Attributes:
        seen: how many messages of each letter have begun.
        partial: whether a message has begun and not ended.
    """

    __slots__ = ("_head", "_known", "_left", "seen")

    def __init__(self, known: Container[int]) -> None:
        self._known = known
        self._head = b""
        self._left = 0
        self.seen: Counter[int] = Counter()

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._left or self._head)

    def follow(self, data: bytes) -> int:
        """Look at the next bytes.

        Returns:
            The offset behind the last message that ends in them; 0 when none does.

        Raises:
            BadRequestFraming: this is no message of the protocol.
        """
        size, last = len(data), 0
        at = self._left
        if at > size:
            self._left -= size
            return 0
        if at:
            self._left, last = 0, at
        if self._head:
            missing = _HEAD - len(self._head)
            head = self._head + data[at : at + missing]
            if len(head) < _HEAD:
                self._head = head
                return last
            self._head = b""
            at += missing + self._read(head, 0)
            if at <= size:
                last = at
        while at + _HEAD <= size:
            at += _HEAD + self._read(data, at)
            if at <= size:
                last = at
        if at > size:
            self._left = at - size
        elif at < size:
            self._head = data[at:]
            self._check(data[at])
        return last

    def _read(self, data: bytes, at: int) -> int:
        """The length of the payload of the message whose head is there."""
        kind = data[at]
        self._check(kind)
        length = int.from_bytes(data[at + 1 : at + _HEAD])
        if not 4 <= length <= MAX_MESSAGE:
            raise BadRequestFraming("a message of PostgreSQL's protocol has an impossible length")
        self.seen[kind] += 1
        return length - 4

    def _check(self, kind: int) -> None:
        if kind not in self._known:
            raise BadRequestFraming("what came is no message of PostgreSQL's protocol")


OF_CLIENT = frozenset(b"BCDEFHPQSXcdfp")
"""Letters of messages that a client may begin, a password among them."""
OF_SERVER = frozenset(b"123ACDEGHINSTVWZcdnst")
"""The same of a server once a session has begun: it asks for no password any more."""
STATEMENTS = b"QEF"
"""Query, Execute, Function call: what is counted as a statement."""
TERMINATE = ord("X")
PASSWORD = ord("p")
