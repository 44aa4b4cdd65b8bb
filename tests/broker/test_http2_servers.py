"""HTTP/2 with servers that others wrote: nginx, which goes away now and then, and Node, which has nothing else."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from broker.h2_upstream import Pieces, relay
from broker.stack import CERTIFIED, HOST, SECRET, Stack, authority
from children import child
from keyhole.core.message import Call

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 64; }}
http {{
  log_format seen escape=none '$connection $server_protocol $request_method $request_uri $http_authorization';
  access_log {folder}/seen.log seen;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 10; http2_max_concurrent_streams 4;
  server {{
    listen unix:{folder}/socket ssl http2;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    root {folder}; gzip on; gzip_min_length 1; gzip_types text/plain;
    location = /echo {{ return 200 $http_authorization; }}
  }}
}}
"""
NODE = """
const { readFileSync } = require("fs");
const server = require("http2").createSecureServer({ key: readFileSync("key.pem"), cert: readFileSync("chain.pem") });
server.on("stream", (stream, headers) => {
  const size = { value: 0 };
  stream.respond({ ":status": 200, "x-path": headers[":path"] }, { waitForTrailers: true });
  stream.on("data", (chunk) => { size.value += chunk.length; stream.write(chunk); });
  stream.on("end", () => stream.end(headers["authorization"]));
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-size": String(size.value) }));
  stream.on("error", () => {});
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


def write_chain(folder: Path) -> None:
    certificate = authority().issue_cert(*CERTIFIED, key_type=trustme.KeyType.ECDSA)
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))


class Behind:
    """A port that leads to a Unix socket, which no other program can have taken before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                there, back = await asyncio.open_unix_connection(self.path)
                break
            except OSError:  # it is still starting
                await asyncio.sleep(0.01)
        await asyncio.gather(relay(reader, back), relay(there, writer))


@pytest.fixture
def nginx(stack: Stack, run, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is not installed: nobody spoke HTTP/2 with it")
    write_chain(tmp_path)
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 8192)
    (tmp_path / "said.txt").write_text(f"the key is {SECRET}\n" * 50)
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path))
    port = run(stack.listen(Behind(tmp_path / "socket")))
    with child([program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]) as process:
        yield port, tmp_path
        process.terminate()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[int]:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed: nobody spoke HTTP/2 with it")
    write_chain(tmp_path)
    with child([program, "-e", NODE], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


async def prepared(stack: Stack, port: int, name: str) -> str:
    await stack.secret("stripe/key")
    await stack.service(name, hosts=[f"{HOST}:{port}"])
    return await stack.agent(name, name)


async def ask(stack: Stack, token: str, port: int, path: str, **fields) -> tuple[int, bytes, dict[bytes, bytes]]:
    call = Call(
        token.encode(),
        "https",
        HOST,
        port,
        "POST" if "body" in fields else "GET",
        path.encode(),
        **{"headers": [], "http2": True, "trailers": True, **fields},
    )
    answer = await stack.keyhole.broker.handle(call)
    parts = []
    while answer.body is not None and (chunk := await answer.body.read()):
        parts.append(chunk)
    return answer.status, b"".join(parts), dict(answer.headers if answer.body is None else answer.body.trailers)


async def logged(folder: Path, count: int) -> list[list[bytes]]:
    """The words of nginx's lines, as many as there were requests: it writes each after the answer was sent."""
    while (text := (folder / "seen.log").read_bytes()).count(b"\n") < count:  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.01)
    return [line.split() for line in text.splitlines()]


def test_nginx_serves_what_is_asked_and_goes_away_without_a_loss(stack: Stack, run, nginx) -> None:
    port, folder = nginx

    async def scenario() -> None:
        token = await prepared(stack, port, "nginx")
        for _ in range(25):
            assert (await ask(stack, token, port, "/echo"))[:2] == (200, b"Bearer " + b"*" * len(SECRET))
        found = await asyncio.gather(*(ask(stack, token, port, "/large.bin") for _ in range(8)))
        assert {(status, body == (folder / "large.bin").read_bytes()) for status, body, _ in found} == {(200, True)}

    run(scenario())
    seen = run(logged(folder, 33))
    assert len(seen) == 33
    assert {line[1] for line in seen} == {b"HTTP/2.0"}
    assert {line[-1] for line in seen} == {SECRET.encode()}
    assert 3 <= len({line[0] for line in seen}) <= 12


def test_nginx_is_spoken_to_as_each_client_speaks(stack: Stack, run, nginx) -> None:
    port, folder = nginx

    async def scenario() -> None:
        token = await prepared(stack, port, "nginx-both")
        for _ in range(2):
            assert (await stack.get(token, "/echo", port=port)).status == 200
            assert (await ask(stack, token, port, "/echo"))[0] == 200

    run(scenario())
    seen = [line[1] for line in run(logged(folder, 4))]
    assert seen == [b"HTTP/1.1", b"HTTP/2.0"] * 2


def test_nginx_compresses_and_the_value_in_it_is_found(stack: Stack, run, nginx) -> None:
    port, _ = nginx

    async def scenario() -> None:
        token = await prepared(stack, port, "nginx-gzip")
        status, body, _ = await ask(stack, token, port, "/said.txt", headers=[(b"accept-encoding", b"gzip")])
        assert (status, body[:2]) == (200, b"\x1f\x8b")
        assert SECRET.encode() not in gzip.decompress(body)

    run(scenario())


def test_node_echoes_a_body_and_its_trailers(stack: Stack, run, node: int) -> None:
    async def scenario() -> None:
        token = await prepared(stack, node, "node")
        pieces = [bytes((number,)) * 40_000 for number in range(40)]
        status, body, trailers = await ask(stack, token, node, "/v1/x", body=Pieces(*pieces))
        assert (status, trailers) == (200, {b"x-size": b"1600000"})
        assert body == b"".join(pieces) + b"Bearer " + b"*" * len(SECRET)

    run(scenario())


def test_node_is_reached_by_clients_of_http1_though_it_has_none(stack: Stack, run, node: int) -> None:
    async def scenario() -> None:
        token = await prepared(stack, node, "node-only")
        for _ in range(2):
            reply = await stack.get(token, port=node)
            assert (reply.status, reply.body) == (200, b"Bearer " + b"*" * len(SECRET))

    run(scenario())
