"""A session of PostgreSQL after its login, as it passes by in both directions."""

from __future__ import annotations

from keyhole.core.errors import BadRequestFraming, KeyholeError
from keyhole.net.postgres import messages
from keyhole.net.postgres.frames import OF_CLIENT, OF_SERVER, PASSWORD, STATEMENTS, TERMINATE, Frames

_READY = ord("Z")
_ENDED = "57P01"  # admin_shutdown


class PostgresTalk:
    """See ``broker.sql.stream.Talk``."""

    goodbye = messages.TERMINATE

    __slots__ = ("_asked", "_client", "_ready", "_server")

    def __init__(self) -> None:
        self._client = Frames(OF_CLIENT)
        self._server = Frames(OF_SERVER)
        self._ready = 0
        self._asked = False

    @property
    def statements(self) -> int:
        """Queries, and executions of what was prepared; a query of several statements is one."""
        return sum(self._client.seen[kind] for kind in STATEMENTS)

    @property
    def parting(self) -> bool:
        """Whether the client has said goodbye."""
        return bool(self._client.seen[TERMINATE])

    @property
    def busy(self) -> bool:
        """Whether the server may still be working for the client."""
        return self._asked

    @property
    def sending(self) -> bool:
        """Whether a message of the client has begun and not ended."""
        return self._client.partial

    def of_server(self, data: bytes) -> int:
        """Follow the server: the offset behind its last complete message. Raises ``BadRequestFraming``."""
        end = self._server.follow(data)
        if self._server.seen[_READY] != self._ready and end == len(data):
            self._ready = self._server.seen[_READY]
            self._asked = False
        return end

    def of_client(self, data: bytes) -> None:
        """Follow the client. Raises ``BadRequestFraming``."""
        self._asked = True
        self._client.follow(data)
        if self._client.seen[PASSWORD]:
            raise BadRequestFraming("the client sends a password in the middle of a session")

    def farewell(self, error: KeyholeError) -> bytes:
        """What tells the client why the session ends; empty where it would stand within a message."""
        if self._server.partial:
            return b""
        return messages.error(_ENDED, error.reason, hint=error.hint)
