"""A curl of today at a proxy with TLS: HTTP/2 with the proxy itself (``--proxy-http2``), and either inside."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from broker.h2_upstream import H2Upstream, context
from broker.stack import HOST, SECRET, Stack
from e2e.internet import CLIENTS, client
from faces.proxy.rig import authority, server_context

CURL = """
import io, json, sys, pycurl
proxy, trusted, ca, version, *urls = sys.argv[1:]
curl, body = pycurl.Curl(), "x" * 300_000
for option, value in (
    (pycurl.PROXY, proxy), (pycurl.PROXYTYPE, 3), (pycurl.PROXY_CAINFO, trusted), (pycurl.CAINFO, ca),
    (pycurl.HTTPPROXYTUNNEL, 1), (pycurl.HTTP_VERSION, int(version)), (pycurl.POSTFIELDS, body), (pycurl.VERBOSE, 1),
):
    curl.setopt(option, value)
for url in urls:
    said = io.BytesIO()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.WRITEDATA, said)
    try:
        curl.perform()
    except pycurl.error as error:
        print(json.dumps(error.args))
        continue
    asked = (pycurl.RESPONSE_CODE, pycurl.INFO_HTTP_VERSION, pycurl.NUM_CONNECTS)
    print(json.dumps([*map(curl.getinfo, asked), said.getvalue().decode()]))
"""
pytestmark = pytest.mark.skipif(
    not any((CLIENTS / "python").glob("lib/*/site-packages/pycurl")),
    reason="pycurl is not in the environment of the clients: make test gets it",
)
HTTPS2 = "HTTP/2 proxy tunnel"  # curl's words, when it has agreed on HTTP/2 with the proxy


class World:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.upstream = H2Upstream()

    async def prepare(self, folder: Path) -> None:
        stack = self.stack
        await stack.secret("stripe/key")
        port = await stack.listen(self.upstream, context("h2", "http/1.1"))
        await stack.service("curl", hosts=[f"{HOST}:{port}", f"{HOST}:{stack.secure}"])
        await stack.service("clear", hosts=[f"{HOST}:{stack.plain}"], schemes=["http"])
        self.token = await stack.agent("curl", "curl", "clear")
        self.urls = {
            "h2": f"https://{HOST}:{port}/v1/a",
            "h1": f"https://{HOST}:{stack.secure}/v1/b",
            "plain": f"http://{HOST}:{stack.plain}/v1/c",
        }
        _, self.port = await stack.proxy.listen(tls=server_context("localhost"))
        self.trusted, self.ca = folder / "proxy-ca.pem", folder / "ca.pem"
        authority().cert_pem.write_to_path(str(self.trusted))
        self.ca.write_text((await stack.ask("read", "sys/keyhole"))["ca"])

    async def curl(self, version: int, *urls: str, token: str = "") -> list[list[object]]:
        """What it says of each URL, all with one handle. It must have spoken HTTP/2 with the proxy."""
        proxy = f"https://agent:{token or self.token}@localhost:{self.port}"
        words = [proxy, str(self.trusted), str(self.ca), str(version), *urls]
        program = client("python")
        process = await asyncio.create_subprocess_exec(program, "-c", CURL, *words, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert process.returncode == 0, err
        assert HTTPS2.encode() in err
        assert SECRET.encode() not in out + err
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def world(module_stack: Stack, runner, tmp_path_factory) -> World:
    made = World(module_stack)
    runner.run(made.prepare(tmp_path_factory.mktemp("curl")))
    return made


def test_http2_in_a_tunnel_on_a_stream_of_http2(world: World, run) -> None:
    there = world.urls["h2"]
    said = run(world.curl(3, there, there))
    assert said == [[200, 3, 1, "ok"], [200, 3, 0, "ok"]], "the second uses the tunnel of the first"
    asked = world.upstream.requests
    assert [each.headers[b"authorization"] for each in asked] == [b"Bearer " + SECRET.encode()] * 2
    assert [bytes(each.body) for each in asked] == [b"x" * 300_000] * 2


@pytest.mark.parametrize("where", ["h1", "plain"])
def test_http1_in_a_tunnel_on_a_stream_of_http2(world: World, run, where: str) -> None:
    world.stack.upstream.forget()
    [said] = run(world.curl(2, world.urls[where]))
    assert said == [200, 2, 1, "ok"]
    assert world.stack.upstream.last.values(b"authorization") == [b"Bearer " + SECRET.encode()]
    assert world.stack.upstream.last.body == b"x" * 300_000


def test_a_token_that_opens_nothing_gets_no_tunnel_on_a_stream_either(world: World, run) -> None:
    world.upstream.requests.clear()
    [[code, _]] = run(world.curl(3, world.urls["h2"], token="hvs.nothing"))
    assert code in {7, 56}, "curl's codes for a tunnel that was not opened"
    assert world.upstream.requests == []
