"""HTTP/2 as real clients speak it: curl (nghttp2), Node, and httpx with the library h2."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx2
import pytest

from faces.proxy.rig import CREDENTIAL, HOST, TOKEN, Received, Rig, authority, client_context

NODE = """
const [port, ca, authority, credential] = process.argv.slice(1);
const headers = {host: authority + ':443', 'proxy-authorization': credential};
const fs = require('fs'), http = require('http'), http2 = require('http2'), tls = require('tls');
http.request({port, method: 'CONNECT', path: authority + ':443', headers}).on('connect', (_, socket) => {
  const secure = tls.connect({socket, servername: authority, ALPNProtocols: ['h2'], ca: fs.readFileSync(ca)}, () => {
    const session = http2.connect('https://' + authority, {createConnection: () => secure});
    let left = 20;
    for (let number = 0; number < 20; number++) {
      const stream = session.request({':path': '/n/' + number, ':method': 'POST'});
      let said = '';
      stream.on('data', (piece) => said += piece).on('end', () => {
        console.log(said);
        if (!--left) session.close(() => process.exit(0));
      });
      stream.write('body ');
      stream.end(String(number));
    }
  });
}).end();
"""


async def echo(received: Received, _writer: asyncio.StreamWriter) -> bytes:
    said = received.line.split(b" ")[1] + b" " + received.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=asyncio.subprocess.STDOUT)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out
    return out.decode()


@pytest.fixture
def ca(tmp_path: Path) -> str:
    authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def _proxy(rig: Rig) -> str:
    return f"http://agent:{TOKEN.decode()}@{rig.address[0]}:{rig.address[1]}"


@pytest.mark.parametrize("how", ["--http2", "--http2-prior-knowledge"])
def test_curl(how: str, ca: str, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"x" * 300_000)
    ask = ["curl", "-sS", "-p", how, "--cacert", ca, "-w", " %{http_version}", "--data-binary", f"@{blob}"]

    async def run() -> None:
        async with Rig(echo) as rig:
            scheme = "https" if how == "--http2" else "http"
            said = await output(*ask, "-x", _proxy(rig), f"{scheme}://{HOST}/a")
            assert said == f"/a {'x' * 300_000} 2"
            assert [call.http2 for call in rig.broker.calls] == [True]

    asyncio.run(run())


def test_curl_at_the_proxys_own_port() -> None:
    async def run() -> None:
        async with Rig(echo) as rig:
            there = f"{HOST}:80:{rig.address[0]}:{rig.address[1]}"
            ask = ["curl", "-sS", "--http2-prior-knowledge", "--connect-to", there, "-w", " %{http_version}"]
            said = await output(*ask, "-H", CREDENTIAL.decode().strip(), f"http://{HOST}/own")
            assert said == "/own  2"

    asyncio.run(run())


def test_node(ca: str) -> None:
    node = shutil.which("node")
    assert node is not None

    async def run() -> None:
        async with Rig(echo) as rig:
            credential = CREDENTIAL.decode().partition(": ")[2].strip()
            said = await output(node, "-e", NODE, str(rig.address[1]), ca, HOST, credential)
            assert sorted(said.split("\n")) == sorted(["", *(f"/n/{number} body {number}" for number in range(20))])
            assert {call.http2 for call in rig.broker.calls} == {True}

    asyncio.run(run())


def test_httpx_with_many_requests_on_one_connection() -> None:
    async def run() -> None:
        async with (
            Rig(echo) as rig,
            httpx2.AsyncClient(http2=True, proxy=_proxy(rig), verify=client_context("h2")) as client,
        ):
            asked = [client.post(f"https://{HOST}/{number}", content=b"b" * 70_000) for number in range(10)]
            answers = await asyncio.gather(*asked)
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            assert [answer.text for answer in answers] == [f"/{number} {'b' * 70_000}" for number in range(10)]

    asyncio.run(run())
