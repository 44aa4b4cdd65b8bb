"""`keyhole mcp gateway` as a process: driven by the official client over stdio and HTTP, and killed."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from children import child
from e2e.test_mcp import post as posted
from e2e.world import KEYHOLE, TOKEN, held

EVIL = (sys.executable, "-S", str(Path(__file__).with_name("evil_mcp.py")))
SECRET = "git/token"
GIVEN = f"x-access-token:{TOKEN}"


@pytest.fixture(scope="module")
def servers(world):
    """A server with approved tools, granted to the agent `coder`."""
    before = world.keyhole("policy", "show", "agent/coder").stdout
    world.keyhole("mcp", "server", "add", "one", "--env", f"EVIL_TOKEN={SECRET}", "--deny", "g*", "--", *EVIL)
    approved = world.keyhole("mcp", "server", "approve", "one", "--yes").stderr
    assert b"does echo" in approved
    world.keyhole("policy", "write", "agent/coder", given=before + b'\npath "tools/*" { capabilities = ["use"] }')
    yield world
    world.keyhole("policy", "write", "agent/coder", given=before)


def post(url, body, **headers):
    """The status of a plain POST."""
    return posted(url, body, **headers)[0]


def clean(text):
    assert not held(TOKEN, text.encode() if isinstance(text, str) else text)
    return text


def test_the_official_client_uses_tools_over_stdio(servers):
    options = ["mcp", "gateway", "--agent", "coder"]

    async def main():
        process = StdioServerParameters(command=KEYHOLE, args=options, env=servers.env)
        async with Client(stdio_client(process)) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert {"one__echo", "one__add", "one__spawn"} <= set(names)
            assert "one__giant" not in names
            for name in ("one__echo", "one__env", "one__structured"):
                assert "***" in clean((await client.call_tool(name, {})).model_dump_json())
            calls = [client.call_tool("one__add", {"a": number, "b": 1}) for number in range(20)]
            assert [int(found.content[0].text) for found in await asyncio.gather(*calls)] == [*range(1, 21)]

    asyncio.run(main())
    listed = json.loads(servers.keyhole("audit", "query", "--secret", SECRET, "--agent", "coder", "--json").stdout)
    assert {record["tool"] for record in listed if record.get("tool")} >= {"one/echo", "one/add"}


def test_over_http_each_request_is_its_agents(servers):
    import httpx2

    token = json.loads(servers.keyhole("agent", "token", "coder", "--json").stdout)["token"]

    async def use(url):
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            found = await client.call_tool("one__add", {"a": 1, "b": 2})
            assert found.content[0].text == "3"
            clean((await client.call_tool("one__echo", {})).model_dump_json())

    words = [KEYHOLE, "--json", "mcp", "gateway", "--http", "127.0.0.1:0"]
    with child(words, env=servers.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        url = json.loads(process.stdout.readline())["url"]
        try:
            asyncio.run(use(url))
            ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            assert post(url, ping) == 401
            assert post(url, ping, Authorization=f"Bearer {token}x") in {401, 403}
            assert post(url, ping, Authorization=f"Bearer {token}", Origin="http://evil.test") == 403
            assert post(url, ping, Authorization=f"Bearer {token}", Host="evil.test") == 403
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_when_the_gateway_is_killed_nothing_of_its_servers_is_left(servers):
    words = [KEYHOLE, "mcp", "gateway", "--agent", "coder"]
    with child(
        words, env=servers.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:

        def asked(number, method, **params):
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            while (said := json.loads(clean(process.stdout.readline()))).get("id") != number:
                pass
            return said["result"]

        info = {"name": "t", "version": "1"}
        asked(1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
        process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        asked(2, "tools/list")
        found = asked(3, "tools/call", name="one__spawn", arguments={})
        pids = json.loads(found["content"][0]["text"])
        holding = [pid for pid in pids if GIVEN.encode() in environ(pid)]
        assert holding == pids
        assert GIVEN.encode() not in environ(process.pid) + environ(os.getpid())
        process.kill()
        process.wait(60)
    until = time.monotonic() + 60
    while any(environ(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [pid for pid in pids if environ(pid)]
    everywhere = (environ(int(each.name)) for each in Path("/proc").iterdir() if each.name.isdecimal())
    assert not [found for found in everywhere if GIVEN.encode() in found]


def environ(pid):
    """Of a process; nothing for one that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def test_the_command_line_shows_what_is_bound_and_no_value(servers):
    shown = json.loads(servers.keyhole("mcp", "server", "show", "one", "--json").stdout)
    assert shown["env"] == {"EVIL_TOKEN": SECRET}
    assert "echo" in shown["approved"]
    assert b"EVIL_TOKEN" in clean(servers.keyhole("mcp", "server", "list").stdout)
    servers.keyhole("mcp", "server", "add", "Bad_Name", "--", "x", code=3)
