"""A session of MySQL or MariaDB after its login, as it passes by in both directions."""

from __future__ import annotations

from keyhole.core.errors import BadRequestFraming, KeyholeError, PolicyDenied
from keyhole.net.mysql import packets

_QUIT, _QUERY, _CHANGE_USER, _EXECUTE, _BULK = 0x01, 0x03, 0x11, 0x17, 0xFA
_STATEMENTS = frozenset((_QUERY, _EXECUTE, _BULK))
_REPLICATION = frozenset((0x12, 0x13, 0x14, 0x15, 0x1E))  # binlog dump, table dump, connect out, register, by GTID
_LAST = 0x20  # of the commands that there are
_KILLED = 1927  # ER_CONNECTION_KILLED of MariaDB


class _Packets:
    """One direction. What begins a packet is told to ``begun``; nothing is kept."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def partial(self) -> bool:
        return bool(self._left or self._head)

    def begun(self, length: int, sequence: int, first: int) -> None:
        """A packet begins; ``first`` is the first byte of its payload, -1 where it has none."""

    def follow(self, data: bytes) -> int:
        """The offset behind the last packet that ends in these bytes; 0 when none does."""
        size, at, last = len(data), 0, 0
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                missing = self._missing()
                piece = data[at : at + missing]
                self._head += piece
                at += len(piece)
                if self._missing():
                    continue
                self._begin()
            if not self._left:
                last = at
        return last

    def _missing(self) -> int:
        """Bytes of the head that are not there: one of the payload is part of it, where there is one."""
        head = self._head
        if len(head) < packets.HEAD:
            return packets.HEAD - len(head)
        return 1 if len(head) == packets.HEAD and head[:3] != b"\0\0\0" else 0

    def _begin(self) -> None:
        head, self._head = self._head, b""
        length = int.from_bytes(head[:3], "little")
        self.begun(length, head[3], head[4] if length else -1)
        self._left = max(length - 1, 0)


class _OfClient(_Packets):
    """Commands: each begins with sequence 0."""

    __slots__ = ("_full", "files", "parting", "replication", "statements")

    def __init__(self, *, replication: bool, files: bool) -> None:
        super().__init__()
        self._full = False
        self.replication = replication
        self.files = files
        self.parting = False
        self.statements = 0

    def begun(self, length: int, sequence: int, first: int) -> None:
        goes_on, self._full = self._full, length == packets.FULL
        if goes_on:
            return
        if sequence:
            # Only a file that the server asked for is sent like this, and it may be any that the client can read.
            if not self.files:
                raise PolicyDenied(
                    "the database asks the client for a file, and gets none", "the option local_infile would let it"
                )
        elif first == _CHANGE_USER:
            raise PolicyDenied("a session stays that of its user", "open another session")
        elif first in _REPLICATION and not self.replication:
            raise PolicyDenied("the service lets nobody replicate the database", "its option replication would")
        elif not (0 <= first <= _LAST or first == _BULK):
            raise BadRequestFraming("what came is no command of MySQL's protocol")
        else:
            self.statements += first in _STATEMENTS
            self.parting = self.parting or first == _QUIT


class MysqlTalk:
    """See ``broker.sql.stream.Talk``.

    Args:
        replication: let the client replicate.
        files: let the server ask the client for files.
    """

    goodbye = packets.packet(0, bytes((_QUIT,)))

    __slots__ = ("_asked", "_client", "_server")

    def __init__(self, *, replication: bool = False, files: bool = False) -> None:
        self._client = _OfClient(replication=replication, files=files)
        self._server = _Packets()
        self._asked = False

    @property
    def statements(self) -> int:
        """Queries, and executions of what was prepared; a query of several statements is one."""
        return self._client.statements

    @property
    def parting(self) -> bool:
        """Whether the client has said goodbye."""
        return self._client.parting

    @property
    def busy(self) -> bool:
        """Whether the server has not answered yet."""
        return self._asked

    @property
    def sending(self) -> bool:
        """Whether a packet of the client has begun and not ended."""
        return self._client.partial

    def of_server(self, data: bytes) -> int:
        """Follow the server: the offset behind its last complete packet."""
        self._asked = False
        return self._server.follow(data)

    def of_client(self, data: bytes) -> None:
        """Follow the client. Raises ``BadRequestFraming``, ``PolicyDenied``."""
        self._asked = True
        self._client.follow(data)

    def farewell(self, error: KeyholeError) -> bytes:
        """What tells a client that waits for an answer why there is none; others see the connection end."""
        if not self._asked or self._server.partial:
            return b""
        return packets.packet(1, packets.error(_KILLED, "70100", str(error)))
