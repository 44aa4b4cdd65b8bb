"""The proxy on a Unix socket."""

import asyncio
import os
import socket
import stat

import pytest
from tests.broker.stack import HOST, SECRET, Stack, basic, read_reply

from keyhole.core.errors import InvalidRequest
from keyhole.net.sockets import bind_path


def test_a_client_at_the_socket_passes_the_same_gate_and_only_the_owner_gets_there(run, tmp_path):
    path = tmp_path / "proxy.sock"

    async def tunnel(stack, line):
        streams = await asyncio.open_unix_connection(str(path))
        target = f"{HOST}:{stack.secure}"
        streams[1].write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode() + line + b"\r\n")
        return await read_reply(streams[0], "CONNECT"), streams

    async def scene():
        async with Stack() as stack:
            await stack.secret("stripe/key")
            await stack.service("ours")
            token = await stack.agent("coder", "ours")
            await stack.proxy.listen_at(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with pytest.raises(InvalidRequest, match="somebody listens"):
                await stack.proxy.listen_at(path)
            refused, streams = await tunnel(stack, b"")
            streams[1].close()
            assert refused.status == 407
            _, streams = await tunnel(stack, basic(token))
            await streams[1].start_tls(stack.client, server_hostname=HOST)
            assert (await stack.send(streams, "/v1/x", host=f"{HOST}:{stack.secure}")).status == 200
            streams[1].close()
            assert SECRET.encode() in stack.upstream.last.head
            await stack.proxy.close(1)
            assert not path.exists()

    run(scene())


def test_a_socket_that_was_left_behind_is_replaced_and_nothing_else_is(tmp_path):
    path = tmp_path / "left"
    bind_path(path).close()
    before = os.umask(0)
    try:
        with bind_path(path) as sock:
            assert sock.family == socket.AF_UNIX
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "link").symlink_to(path)
    for there in (file, tmp_path / "link"):
        with pytest.raises(InvalidRequest, match="something else"):
            bind_path(there)
    assert file.read_text() == "mine"
    for wrong in (tmp_path / ("x" * 120), tmp_path / "no" / "folder"):
        with pytest.raises(InvalidRequest, match="cannot listen"):
            bind_path(wrong)
