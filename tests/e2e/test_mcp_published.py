"""Published servers behind the gateway, against stand-ins of their APIs, used by the MCP Inspector and by the SDK.

Everything that passes between clients and the gateway goes through a recorder, so a token in any frame would be seen.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import keyhole
from children import child
from e2e.inspector import call, over_http
from e2e.internet import client
from e2e.test_mcp_gateway import environ
from e2e.world import KEY, KEYHOLE, held, node
from keyhole.cli.mcp.gateway import ways
from keyhole.faces.mcp.gateway.gateway import Gateway

GITLAB, NOTION, OBSIDIAN = "glpat-e2e_7f3A9kQ2xLmW8", "ntn_e2e4471902837465KdXw", "obs0e2e19af33d7c2b84"
TOKENS = {"gitlab": GITLAB, "notion": NOTION, "obsidian": OBSIDIAN}
TIME = "2026-01-02T03:04:05Z"


def _api(path: str, authorization: str):
    """What GitLab, Notion and the plugin of Obsidian answer, in short; each says the token back where it fits in."""
    if path.startswith("/api/v4/projects?"):
        fields = ("web_url", "ssh_url_to_repo", "http_url_to_repo")
        project = {"id": 7, "name": "keys", "path_with_namespace": "acme/keys", "visibility": "private"}
        project |= dict.fromkeys(fields, "https://gitlab.example/acme/keys")
        project |= {"description": f"made with {authorization}", "default_branch": "main"}
        return [project | {"created_at": TIME, "last_activity_at": TIME}]
    if path == "/v1/users/me":
        return {"object": "user", "id": "u1", "type": "bot", "name": f"bot of {authorization}"}
    return {"files": ["notes.md", f"{authorization}.md"]} if path == "/vault/" else None


class _StandIn(BaseHTTPRequestHandler):
    """The three APIs at one address; a request without the right token is refused."""

    def log_message(self, *_args):
        pass

    def do_GET(self):
        said = _api(self.path, self.headers.get("Authorization", ""))
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        body = json.dumps(said).encode()
        self.send_response(200 if said is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Recorder(BaseRequestHandler):
    """Passes bytes on, and keeps them."""

    def handle(self):
        with contextlib.suppress(OSError), create_connection(("127.0.0.1", self.server.there)) as there:
            back = threading.Thread(target=self._pass, args=(there, self.request), daemon=True)
            back.start()
            self._pass(self.request, there)
            # A client that is gone reads no more: a reset says so, an end of what it sends does not.
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            there.shutdown(socket.SHUT_RD)
            back.join()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.server.frames.append(data)
                sink.sendall(data)
            sink.shutdown(1)


@contextlib.contextmanager
def serving(server, **attributes):
    for name, value in attributes.items():
        setattr(server, name, value)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def bindings(port: int):
    api = f"http://127.0.0.1:{port}"
    program = {"gitlab": client("mcp-server-gitlab"), "notion": client("notion-mcp-server")}
    return {
        "gitlab": {
            "command": node(),
            "args": [program["gitlab"]],
            "env": {"GITLAB_PERSONAL_ACCESS_TOKEN": "gitlab/token"},
            "settings": {"GITLAB_API_URL": f"{api}/api/v4"},
        },
        "notion": {
            "command": node(),
            "args": [program["notion"]],
            "env": {"NOTION_TOKEN": "notion/token"},
            "settings": {"BASE_URL": api},
        },
        "obsidian": {
            "command": client("mcp-obsidian"),
            "env": {"OBSIDIAN_API_KEY": "obsidian/token"},
            "settings": {"OBSIDIAN_PROTOCOL": "http", "OBSIDIAN_HOST": "127.0.0.1", "OBSIDIAN_PORT": str(port)},
        },
    }


def furnish(world, port):
    """Bind the servers, approve their tools as they are, and let the agent `publisher` use them; its token."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.env.items():
            patch.setenv(name, value)
        with keyhole.Client() as vault:
            for name, body in bindings(port).items():
                vault.write(f"secret/data/{name}/token", {"data": {"value": TOKENS[name]}})
                vault.write(f"tools/servers/{name}", body)
            vault.write("agents/publisher")
            policy = "\n".join(f'path "tools/{name}/*" {{ capabilities = ["use"] }}' for name in TOKENS)
            vault.write("sys/policies/acl/agent/publisher", {"policy": policy})
            asyncio.run(_approve(vault))
            return str(vault.write("agents/publisher/token").data["token"])


async def _approve(vault):
    own = vault.party()
    stands = Gateway(own, ways())
    try:
        for name, found in zip(TOKENS, await asyncio.gather(*map(stands.listing, TOKENS)), strict=True):
            digests = {tool: each.digest for tool, each in found.items()}
            await asyncio.to_thread(own.ask, "update", f"tools/servers/{name}/pins", {"approve": digests})
    finally:
        await stands.close()
        own.close()


@pytest.fixture(scope="module")
def gateway(world):
    """The gateway over HTTP with a recorder before it: URL, the agent's token, and what was seen."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _StandIn), seen=[]) as api:
        token = furnish(world, api.server_address[1])
        errors = world.folder / "gateway.err"
        words = [KEYHOLE, "--json", "mcp", "gateway", "--http", "127.0.0.1:0"]
        for name in TOKENS:
            words += ["--server", name]
        with (
            errors.open("wb") as stderr,
            child(words, env=world.env, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL) as p,
        ):
            there = int(json.loads(p.stdout.readline())["url"].rpartition(":")[2].partition("/")[0])
            with serving(ThreadingTCPServer(("127.0.0.1", 0), _Recorder), frames=[], there=there) as recorder:
                try:
                    url = f"http://127.0.0.1:{recorder.server_address[1]}/mcp"
                    yield {"url": url, "token": token, "api": api, "frames": recorder.frames, "process": p.pid}
                finally:
                    p.terminate()
                    assert p.wait(60) == 0
            assert not p.stdout.read()
    said = errors.read_bytes()
    assert not [value for value in TOKENS.values() if held(value, said)], said


def test_the_inspector_uses_a_tool_of_a_published_server_and_no_frame_has_its_token(world, gateway):
    config = over_http(world.folder / "work" / "inspector.json", gateway["url"], gateway["token"])
    found = json.dumps(call(world, config, "gitlab__search_repositories", {"search": "keys"}, era="modern"))
    assert "acme/keys" in found
    assert "made with Bearer ***" in found
    [(_, sent)] = [each for each in gateway["api"].seen if "search=keys" in each[0]]
    assert sent == f"Bearer {GITLAB}"
    assert not held(GITLAB, b"".join(gateway["frames"]))


def test_the_inspector_starts_the_server_that_install_wrote_into_a_project(world):
    config = world.folder / "work" / ".mcp.json"
    world.keyhole("mcp", "install", "project", "--agent", "coder")
    before = len(world.upstream.seen)
    found = call(world, config, "call", {"url": f"{world.base}/echo", "service": "api"}, era="legacy")
    config.unlink()
    assert found["structuredContent"]["status"] == 200
    [seen] = world.upstream.seen[before:]
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert "********" in found["content"][0]["text"]
    assert not held(KEY, json.dumps(found).encode())


@pytest.mark.parametrize(
    ("mode", "tool", "path", "server"),
    [
        ("auto", "notion__API-get-self", "/v1/users/me", "notion"),
        ("legacy", "obsidian__obsidian_list_files_in_vault", "/vault/", "obsidian"),
    ],
)
def test_the_official_client_uses_the_others(gateway, mode, tool, path, server):
    import httpx2

    async def main():
        headers = {"Authorization": f"Bearer {gateway['token']}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(gateway["url"], http_client=http), mode=mode) as asking,
        ):
            return (await asking.call_tool(tool, {})).model_dump_json()

    found = asyncio.run(main())
    assert "Bearer ***" in found
    assert f"Bearer {TOKENS[server]}" in [sent for asked, sent in gateway["api"].seen if asked == path]
    assert not held(TOKENS[server], b"".join(gateway["frames"]))


def test_no_file_of_the_vault_and_no_record_has_a_token(world, gateway):
    for value in TOKENS.values():
        files = [path for path in world.folder.rglob("*") if path.is_file() and "repositories" not in path.parts]
        assert not [path for path in files if value.encode() in path.read_bytes()]
    records = world.keyhole("audit", "query", "--agent", "publisher", "--json").stdout
    assert {record["tool"] for record in json.loads(records) if record.get("tool")} >= {
        "gitlab/search_repositories",
        "notion/API-get-self",
        "obsidian/obsidian_list_files_in_vault",
    }
    assert not [value for value in TOKENS.values() if held(value, records)]


LOOK = """
import json, os, pathlib, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)  # python itself may lie where only root can start it
values = [value.encode() for value in json.load(sys.stdin)]
found = []
for file in ("environ", "cmdline", "stat", "status", "comm", "task/*/environ", "task/*/cmdline", "fd/*", "fdinfo/*"):
    for path in pathlib.Path("/proc").glob("[0-9]*/" + file):
        try:
            text = path.read_bytes()[:1 << 20] if path.is_file() else b""
        except OSError:
            continue
        found += [str(path) for value in values if value in text]
print(json.dumps(found))
"""


def test_another_user_finds_no_token_in_the_processes(gateway):
    holding = [
        pid for pid in (int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()) if _holds(pid)
    ]
    assert len(holding) >= len(TOKENS)  # the servers run, and have them
    if os.geteuid() != 0:  # only root can become another user; the kernel says who may read
        assert not [pid for pid in holding if Path(f"/proc/{pid}/environ").stat().st_mode & 0o077]
        return
    program = [sys.executable, "-I", "-S", "-c", LOOK]
    done = subprocess.run(program, input=json.dumps([*TOKENS.values()]).encode(), capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def _holds(pid):
    text = environ(pid)
    return any(value.encode() in text for value in TOKENS.values())
