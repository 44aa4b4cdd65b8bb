"""The MCP server, driven by the official SDK's client: over stdio and over HTTP, in both revisions of the protocol.

`sent` and `said` are all bytes that pass between client and server, so a value in any frame would be seen.
"""

import asyncio
import contextlib
import json
import subprocess
import urllib.error
import urllib.request

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from children import child
from e2e.inspector import call
from e2e.world import API, KEY, KEYHOLE, TOKEN, held

TOOLS = [
    "list_services",
    "list_secrets",
    "call",
    "why",
    "status",
    "request_access",
    "my_requests",
    "my_leases",
    "my_audit",
]


def tools_of(world, *options):
    words = ["mcp", "serve", "--agent", "coder", *options]
    return StdioServerParameters(command=world.program, args=words, env=world.env)


async def asked(client, name, **arguments):
    """Whether the tool failed, its text and its data."""
    found = await client.call_tool(name, arguments)
    text = found.content[0].text
    for value in (KEY, TOKEN):
        assert not held(value, found.model_dump_json().encode())
    return found.is_error, text, found.structured_content


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_finds_its_services_calls_them_and_never_sees_a_value(world, mode):
    async def main():
        async with Client(stdio_client(tools_of(world)), mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            _, text, data = await asked(client, "list_services")
            assert "api" in [service["name"] for service in data["services"]]
            assert {"api/key", "git/token"} <= set((await asked(client, "list_secrets"))[2]["secrets"])
            failed, text, data = await asked(client, "call", url=f"{world.base}/v1/mcp", bearer="api/key")
            assert (failed, data["status"], data["service"]) == (False, 200, "api")
            assert text.startswith("HTTP 200\n\n")
            _, text, data = await asked(client, "call", url=f"{world.base}/echo", service="api")
            assert data["status"] == 200
            assert "*" * 8 in text
            failed, text, _ = await asked(client, "call", url="https://evil.example/", bearer="api/key")
            assert failed
            assert text.startswith("no_service: ")
            assert (await asked(client, "why", url=f"{world.base}/v1/x"))[1] == "allowed, through the service api"
            assert (await asked(client, "status"))[2]["agent"] == "agent/coder"

    asyncio.run(main())


def test_calls_go_on_side_by_side_and_their_answers_are_not_mixed_up(world):
    async def main():
        async with Client(stdio_client(tools_of(world))) as client:
            sizes = range(1, 25)
            calls = [
                asked(client, "call", url=f"{world.base}/v1/x", service="api", method="POST", body="x" * size)
                for size in sizes
            ]
            found = await asyncio.gather(*calls)
            assert [json.loads(data["body"])["got"] for _, _, data in found] == list(sizes)

    asyncio.run(main())


def test_wrong_arguments_are_said_and_nothing_is_sent(world):
    async def main():
        async with Client(stdio_client(tools_of(world))) as client:
            before = len(world.upstream.seen)
            for arguments in (
                {},
                {"url": 5},
                {"url": "no url"},
                {"url": f"{world.base}/v1/x", "header": {"X": 1}},
                {"url": f"{world.base}/v1/x", "bearer": "api/key", "basic": "api/key"},
                {"url": f"{world.base}/v1/x", "bearer": "git/token"},
                {"url": f"{world.base}/v1/x", "bearer": "nothing/here"},
                {"url": f"{world.base}/v1/x", "unknown": "x"},
                {"url": f"{world.base}/v1/x", "service": "api", "headers": {"X-A": "a\r\nb: c"}},
                {"url": f"{world.base}/v1/x", "service": "api", "method": "GET / HTTP/1.1\r\nX: y"},
            ):
                failed, text, data = await asked(client, "call", **arguments)
                assert failed, arguments
                assert data["error"]["code"] in {"invalid_request", "no_service", "bad_request_framing"}, text
            assert (await asked(client, "reveal_secret", secret="api/key"))[0]
            assert (await asked(client, "LIST_SERVICES"))[0]
            assert len(world.upstream.seen) == before

    asyncio.run(main())


def test_access_is_asked_for_and_a_person_gives_it(world):
    async def main():
        async with Client(stdio_client(tools_of(world))) as client:
            asked_for = (await asked(client, "request_access", service="later", reason="to write the report"))[2]
            listed = world.keyhole("requests").stdout.decode()
            assert "to write the report" in listed
            world.keyhole("service", "add", "later", "--host", API, "--secret", "api/key", "--header", "X-Later")
            world.keyhole("approve", asked_for["id"])
            assert "later" in str((await asked(client, "list_services"))[2])
            assert (await asked(client, "my_requests"))[2]["requests"] == []
            world.keyhole("revoke", "coder", "later")
            world.keyhole("service", "rm", "later")

    asyncio.run(main())


def test_values_are_shown_only_where_that_is_on_and_the_agent_may_read(world):
    async def main(*, right):
        async with Client(stdio_client(tools_of(world, "--allow-reveal"))) as client:
            found = await client.call_tool("reveal_secret", {"secret": "git/token"})
            assert found.is_error is not right
            assert (TOKEN in found.model_dump_json()) is right

    asyncio.run(main(right=False))
    policy = 'path "services/*" { capabilities = ["use"] }\npath "secret/data/git/token" { capabilities = ["read"] }'
    before = world.keyhole("policy", "show", "agent/coder").stdout
    world.keyhole("policy", "write", "agent/coder", given=policy.encode())
    asyncio.run(main(right=True))
    world.keyhole("policy", "write", "agent/coder", given=before)
    records = json.loads(world.keyhole("audit", "query", "--secret", "git/token", "--json").stdout)
    assert any(record["operation"] == "read" and record["caller"] == "agent/coder" for record in records)


def test_the_server_ends_with_its_client_and_its_token_with_it(world):
    with child(
        [KEYHOLE, "mcp", "serve", "--agent", "coder"], env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.stdin.close()
        assert process.wait(60) == 0
    assert json.loads(world.keyhole("agent", "show", "coder", "--json").stdout)["tokens"] == 0


def test_a_server_that_is_told_to_end_leaves_no_token_behind(world):
    with child(
        [KEYHOLE, "mcp", "serve", "--agent", "coder"], env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.terminate()
        assert process.wait(60) == 0
    assert json.loads(world.keyhole("agent", "show", "coder", "--json").stdout)["tokens"] == 0


ODD = [
    b"[" * 100_000,
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"' + b"x" * (9 << 20) + b'"}',
    b'{"jsonrpc":"2.0","id":1e400,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    b'"\xff\xfe\xed\xa0\x80"',
    b'{"jsonrpc":"2.0","id":7,\n"method":"ping"}',
    b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"call","arguments":[]}}',
    b"[" + b",".join([b'{"jsonrpc":"2.0","id":9,"method":"ping"}'] * 10_000) + b"]",
]


def test_a_message_that_is_none_hurts_no_other(world):
    with child(
        [KEYHOLE, "mcp", "serve", "--agent", "coder"], env=world.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        for number, line in enumerate(ODD):
            after = {"jsonrpc": "2.0", "id": f"after-{number}", "method": "ping"}
            process.stdin.write(line + b"\n" + json.dumps(after).encode() + b"\n")
            process.stdin.flush()
            while (said := json.loads(process.stdout.readline())).get("id") != after["id"]:
                assert "result" not in said, (line[:60], said)
        process.stdin.close()
        assert process.wait(60) == 0


@contextlib.contextmanager
def http_server(world, *, api=False):
    """The endpoint of `mcp serve --http`, or that of a server."""
    words = ("server", "--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", "--json")
    if not api:
        words = ("mcp", "serve", "--http", "127.0.0.1:0", "--json")
    with child([KEYHOLE, *words], env=world.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            started = json.loads(process.stdout.readline())
            yield f"{started['api']}/mcp" if api else started["url"]
        finally:
            process.terminate()
            assert process.wait(60) == 0


def post(url, body, **headers):
    """Status and body of a plain POST."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"} | sent
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), sent), timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("api", [False, True], ids=["mcp-serve", "server"])
def test_over_http_each_request_is_its_tokens(world, api):
    token = json.loads(world.keyhole("agent", "token", "coder", "--json").stdout)

    async def talk(url):
        import httpx2

        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token['token']}"}, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            _, _, data = await asked(client, "call", url=f"{world.base}/v1/http", service="api")
            assert data["status"] == 200
            assert (await asked(client, "status"))[2]["agent"] == "agent/coder"

    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    with http_server(world, api=api) as url:
        asyncio.run(talk(url))
        assert post(url, ping)[0] == 401
        assert post(url, ping, Authorization="Bearer hvs.nobody")[0] in {401, 403}
        bearer = f"Bearer {token['token']}"
        assert post(url, ping, Authorization=bearer, Origin="http://evil.test")[0] == 403
        assert post(url, ping, Authorization=bearer, Host="evil.test")[0] == 403
        assert post(url, [ping] * 10_000, Authorization=bearer)[0] == 400
        world.keyhole("agent", "revoke", "coder")
        assert post(url, ping, Authorization=bearer)[0] in {401, 403}


def test_the_inspector_finds_and_makes_a_call(world, tmp_path):
    """One of the eight ways of `campaigns/mcp_inspector.py`: a client that is not of the SDK in Python."""
    entry = {"command": KEYHOLE, "args": ["mcp", "serve", "--agent", "coder"], "env": world.env}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"keyhole": entry}}))
    found = json.dumps(call(world, config, "call", {"url": f"{world.base}/echo", "service": "api"}, era="modern"))
    assert "****" in found
    assert not held(KEY, found.encode())


def test_without_tls_it_listens_on_loopback_only(world):
    done = world.keyhole("mcp", "serve", "--http", "0.0.0.0:0", code=3)
    assert b"loopback" in done.stderr
