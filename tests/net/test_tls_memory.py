"""How much of a client's connection OpenSSL holds at once, in buffers that never become smaller."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

import pytest
from tests.faces.proxy.rig import HOST, client_context, server_context

from keyhole.net.http1.tls import PIECE, TlsChannel
from keyhole.net.http1.wire import Wire, WireGroup

_SENT = bytes(range(256)) * (4 * PIECE // 256) + b"and a rest"
_OVERHEAD = 64 * 22  # bytes of records
_SIZES = [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, len(_SENT)]


class _Transport:
    """Where the bytes of a wire go."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.write = self.sent.append
        self.writelines = self.sent.extend

    def set_write_buffer_limits(self, high: int) -> None: ...


def _connected() -> tuple[TlsChannel, TlsChannel]:
    client = TlsChannel(client_context(), server_side=False, server_hostname=HOST)
    server = TlsChannel(server_context(), server_side=True)
    client.start()
    while not (client.established and server.established):
        server.receive(client.output())
        client.receive(server.output())
    client.receive(server.output())
    return client, server


@pytest.mark.parametrize("size", _SIZES)
def test_much_is_encrypted_in_pieces_for_a_client(size: int) -> None:
    async def run() -> None:
        client, server = _connected()
        wire, transport = Wire(WireGroup(asyncio.get_running_loop(), 1.0)), _Transport()
        wire.connection_made(cast("Any", transport))
        wire.tls = server
        wire.write(_SENT[:size])
        wire.flush()
        assert client.receive(b"".join(transport.sent)) == _SENT[:size]
        assert max(map(len, transport.sent)) <= PIECE + _OVERHEAD
        assert len(transport.sent) == -(-size // PIECE)

    asyncio.run(run())


class _Watched:
    """A buffer, and how much was in it at most."""

    def __init__(self, buffer: ssl.MemoryBIO) -> None:
        self._buffer = buffer
        self.most = 0

    @property
    def pending(self) -> int:
        return self._buffer.pending

    def write(self, data: bytes) -> int:
        written = self._buffer.write(data)
        self.most = max(self.most, self._buffer.pending)
        return written


@pytest.mark.parametrize("size", _SIZES)
def test_much_that_a_client_sends_is_decrypted_in_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = _connected()
    watched = _Watched(server._incoming)  # what it holds is not seen from outside
    monkeypatch.setattr(server, "_incoming", watched)
    assert server.receive(client.send(_SENT[:size])) == _SENT[:size]
    assert 0 < watched.most <= PIECE + 16 * 1024 + _OVERHEAD


def test_what_comes_behind_the_end_of_tls_is_not_read() -> None:
    client, server = _connected()
    data = client.send(b"x" * 100) + client.close() + bytes(2 * PIECE)
    assert server.receive(data) == b"x" * 100
    assert server.closed
