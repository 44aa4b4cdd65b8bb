"""What the proxy sends is read again by h11, llhttp, nginx and Go's net/http: the same requests, and no others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import os
import random
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from children import child
from faces.proxy.rig import HOST, Received, Rig, h11_targets, llhttp_targets
from faces.proxy.test_smuggling import LIMITS, llhttp_cases, play, smuggling_cases
from keyhole.core.errors import InvalidRequest
from keyhole.core.target import canonical_target, readings

SENTINEL = b"/last-of-all"
LAST = b"GET %b HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n" % SENTINEL
Sent = list[tuple[bytes, list[bytes]]]
PARTS = [
    "/",
    "/",
    "//",
    "a",
    "admin",
    "%2F",
    "%2f",
    "%25",
    "%252F",
    "%2520",
    "%E9",
    "%C3%A9",
    "%2561",
    ".",
    "..",
    "%2e",
]
PARTS += ["%252e", ";x", "%3B", "%25%32%46", "é", "~", "x:", "@", "%5C", "%00", "%C0%AF", "%3F", "%23", "index.html"]
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  log_format seen escape=none '$remote_port $request_uri';
  access_log {folder}/seen.log seen;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000; client_max_body_size 0; large_client_header_buffers 8 128k; merge_slashes off;
  server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
}}
"""


def _corpora() -> list[tuple[str, bytes]]:
    cases = smuggling_cases("accept", "reject", "reject_or_single", "reject_or_drop_trailer")
    if not os.environ.get("KEYHOLE_VECTORS"):
        return cases
    for number, row in enumerate(llhttp_cases("request")):
        raw = base64.b64decode(row["raw_b64"])
        raw = re.sub(rb"(HTTP/1\.1\r\n)", rb"\1Host: " + HOST.encode() + rb"\r\n", raw)
        cases.append((f"llhttp-{number}", re.sub(rb"\A([A-Z]+) (?:url|[^ /]+)(?= HTTP)", rb"\1 /url", raw)))
    return cases


@pytest.fixture(scope="module")
def sent() -> Sent:
    """For each connection to the upstream what the proxy sent, and the targets that the upstream's own reader found."""

    async def one(gate: asyncio.Semaphore, form: str, raw: bytes) -> Sent:
        heads: Counter[int] = Counter()

        async def count(received: Received, _writer: asyncio.StreamWriter) -> None:
            heads[received.connection] += 1

        async with gate, Rig(limits=LIMITS) as rig:
            rig.differential = False
            rig.upstream.on_head = count
            await play(rig, form, raw, 0.15)
            found = []
            for number, stream in enumerate(rig.upstream.raw):
                whole = [request for request in rig.upstream.requests if request.connection == number]
                if whole and len(whole) == heads[number]:  # a body that broke off is no request to anybody
                    found.append((bytes(stream), [request.line.split(b" ")[1] for request in whole]))
            return found

    async def run() -> Sent:
        gate = asyncio.Semaphore(48)
        plays = (one(gate, form, raw) for form in ("tunnel", "absolute") for _, raw in _corpora())
        return [stream for found in await asyncio.gather(*plays) for stream in found]

    found = asyncio.run(run())
    assert len(found) >= 20
    return found


@pytest.mark.parametrize("read", [h11_targets, llhttp_targets])
def test_other_parsers_find_the_same_requests(sent: Sent, read: Callable[[bytes], list[bytes]]) -> None:
    for stream, targets in sent:
        assert read(stream) == targets, stream


def _ask(port: int, sent: Sent) -> dict[int, list[bytes]]:
    """Send each stream on a connection of its own, with a last request behind it; what was sent from which port."""

    async def one(stream: bytes, targets: list[bytes]) -> tuple[int, list[bytes]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        local = int(writer.get_extra_info("sockname")[1])
        writer.write(stream + LAST)
        with contextlib.suppress(OSError):
            await reader.read(-1)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return local, [*targets, SENTINEL]

    async def run() -> dict[int, list[bytes]]:
        async with asyncio.timeout(60):
            return dict([await one(*stream) for stream in sent])

    return asyncio.run(run())


def test_the_comparison_notices_a_second_request() -> None:
    stream = b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    assert h11_targets(stream) == llhttp_targets(stream) == [b"/a", b"/b"]


def _seen(lines: list[bytes]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for line in lines:
        port, _, target = line.partition(b" ")
        found.setdefault(int(port), []).append(target)
    return found


@contextlib.contextmanager
def _running(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def test_nginx_finds_the_same_requests(sent: Sent, tmp_path: Path, unused_port: int) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed: it did not read what the proxy sent")
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=unused_port))
    with _running(nginx, "-p", str(tmp_path), "-c", str(config)) as process:
        asyncio.run(_listening(unused_port, process))
        expected = _ask(unused_port, sent)
    seen = _seen((tmp_path / "seen.log").read_bytes().splitlines())
    assert {port: seen.get(port, []) for port in expected} == expected


@pytest.mark.parametrize("merging", ["on", "off"])
def test_what_nginx_makes_of_a_path_is_among_its_readings(merging: str, tmp_path: Path, unused_port: int) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed: it did not read any path")
    config, dice, accepted = tmp_path / "nginx.conf", random.Random(11), 0
    text = NGINX.format(folder=tmp_path, port=unused_port).replace("merge_slashes off", f"merge_slashes {merging}")
    config.write_text(text.replace("return 204;", 'return 200 "$uri";'))
    with _running(nginx, "-p", str(tmp_path), "-c", str(config)) as process:
        asyncio.run(_listening(unused_port, process))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", unused_port)) as connection:
            for _ in range(1500):
                path = "/" + "".join(dice.choices(PARTS, k=dice.randint(1, 7)))
                try:
                    target = canonical_target(path.encode())
                except InvalidRequest:
                    continue
                accepted += 1
                connection.request("GET", target.decode())
                raw = connection.getresponse().read()
                try:
                    read = {raw.decode()}
                except UnicodeDecodeError:
                    read = {raw.decode("latin-1"), raw.decode(errors="replace")}
                assert read & {*readings(target)}, (target, raw)
    assert accepted > 100


def test_go_finds_the_same_requests(sent: Sent, tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not on PATH: net/http did not read what the proxy sent")
    program = tmp_path / "recorder"
    env = {**os.environ, "GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off"}
    source = str(Path(__file__).with_name("recorder.go"))
    subprocess.run([go, "build", "-o", str(program), source], check=True, env=env, capture_output=True, timeout=300)
    with _running(str(program)) as process:
        assert process.stdout is not None
        expected = _ask(int(process.stdout.readline()), sent)
        process.terminate()
        seen = _seen(process.stdout.read().splitlines())
    assert seen == expected


async def _listening(port: int, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(60):
        while True:
            assert process.poll() is None, "nginx did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
