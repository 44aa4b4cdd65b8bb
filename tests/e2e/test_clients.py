"""Clients as they are, without a change and without a key, reach their APIs through `keyhole run`."""

import base64
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from broker.test_grpc import Service
from e2e.internet import CLIENTS as BUILT
from e2e.internet import PROGRAMS, client, program_of_node
from e2e.world import API, GIT, KEY, PLACEHOLDER, TOKEN, held, node

REQUESTS = "import requests, sys; r = requests.get(sys.argv[1]); r.raise_for_status(); print(r.text)"
HTTPX = "import httpx2, sys; r = httpx2.get(sys.argv[1]); r.raise_for_status(); print(r.text)"
URLLIB = "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
FETCH = "fetch(process.argv[1]).then(async r => { if (!r.ok) process.exit(9); console.log(await r.text()) })"

URLLIB3 = """
import os, sys, urllib3
from urllib3.util import parse_url, make_headers
proxy = parse_url(os.environ["HTTPS_PROXY"])
pool = urllib3.ProxyManager(
    proxy._replace(auth=None).url, proxy_headers=make_headers(proxy_basic_auth=proxy.auth),
    ca_certs=os.environ["SSL_CERT_FILE"],
)
answer = pool.request("GET", sys.argv[1])
print(answer.data.decode()) if answer.status == 200 else sys.exit(9)
"""
AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        answer.raise_for_status()
        print(await answer.text())
asyncio.run(main())
"""

CLIENTS = {
    "curl": lambda: ["curl", "-sSf"],
    "wget": lambda: ["wget", "-q", "-O", "-"],
    "requests": lambda: [sys.executable, "-c", REQUESTS],
    "httpx2": lambda: [sys.executable, "-c", HTTPX],
    "urllib": lambda: [sys.executable, "-c", URLLIB],
    "urllib3": lambda: [client("python"), "-c", URLLIB3],
    "aiohttp": lambda: [client("python"), "-c", AIOHTTP],
    "fetch of Node": lambda: [node(), "-e", FETCH],
    "axios": lambda: program_of_node("axios.mjs"),
}


@pytest.mark.client(*CLIENTS)
@pytest.mark.parametrize("name", CLIENTS)
def test_the_client_is_let_in_with_a_key_that_it_does_not_have(world, name):
    path = f"/v1/{name.partition(' ')[0]}"
    done = world.run(*CLIENTS[name](), f"{world.base}{path}")
    assert json.loads(done.stdout) == {"ok": True, "got": 0}
    [seen] = [seen for seen in world.upstream.seen if seen.path == path]
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert "Proxy-Authorization" not in seen.headers


@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_that_echoes_the_key_in_every_form_gives_it_to_no_client(world, name):
    done = world.run(*CLIENTS[name](), f"{world.base}/echo")
    assert b"****" in done.stdout
    assert not held(KEY, done.stdout)


@pytest.mark.parametrize(
    "script",
    [
        AIOHTTP.replace("trust_env=True", ""),
        "import sys, urllib3; urllib3.PoolManager(retries=False).request('GET', sys.argv[1])",
    ],
    ids=["aiohttp", "urllib3"],
)
def test_a_client_that_is_not_told_of_the_proxy_reaches_nobody(world, script):
    before = len(world.upstream.seen)
    world.run(client("python"), "-c", script, f"{world.base}/v1/untold", code=1)
    assert len(world.upstream.seen) == before


@pytest.mark.client("net/http of Go")
def test_go_is_let_in(world):
    env = {"GOCACHE": str(world.folder / "go"), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    done = world.run("go", "run", str(PROGRAMS / "get.go"), f"{world.base}/v1/go", **env)
    assert json.loads(done.stdout) == {"ok": True, "got": 0}
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/go"]
    assert seen.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.client("grpc-go")
def test_grpc_go_is_let_in(world):
    program = BUILT / "go/grpc"
    if not program.exists():
        pytest.skip("go and Debian's golang-google-grpc-dev were not both here when the clients were built")
    service, server = Service(), grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([service])
    certificate = world.authority.issue_cert(API)
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    )
    world.keyhole(
        *("service", "add", "echo", "--host", f"{API}:{port}", "--path", "/test.Test/*"),
        *("--secret", "api/key", "--bearer", "--allow-address", "127.0.0.1/32"),
    )
    world.keyhole("grant", "coder", "echo")
    server.start()
    try:
        done = world.run(str(program), f"{API}:{port}")
    finally:
        server.stop(0).wait()
    said = done.stdout.decode().splitlines()
    assert "Count 500 499" in said
    assert "Nothing Unimplemented Method not found!" in said
    assert {seen["authorization"] for seen in service.seen} == {f"Bearer {KEY}"}


@pytest.mark.client("reqwest of Rust")
def test_rust_is_let_in(world):
    program = BUILT / "rust/target/debug/get"
    if not program.exists():
        pytest.skip("cargo and Debian's librust-reqwest-dev were not both here when the clients were built")
    done = world.run(str(program), f"{world.base}/v1/rust")
    assert json.loads(done.stdout) == {"ok": True, "got": 0}
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/rust"]
    assert seen.headers["Authorization"] == f"Bearer {KEY}"


def test_a_client_that_sends_its_placeholder_has_it_replaced(world):
    done = world.run("curl", "-sSf", "-H", f"Authorization: Bearer {PLACEHOLDER}", f"{world.base}/v1/replaced")
    assert json.loads(done.stdout)["ok"] is True
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/replaced"]
    assert PLACEHOLDER not in str(seen.headers)


def test_a_body_of_all_bytes_arrives_as_it_was_sent(world):
    body = bytes(range(256)) * 4096
    (world.folder / "work/body").write_bytes(body)
    command = ("curl", "-sSf", "--data-binary", "@body", f"{world.base}/v1/upload")
    done = world.run(*command)
    assert json.loads(done.stdout)["got"] == len(body)
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/upload"]
    assert seen.body == body


def git(*words, cwd):
    env = os.environ | {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.test", "GIT_CONFIG_NOSYSTEM": "1"}
    env |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.test"}
    return subprocess.run(["git", *words], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


def repository(folder, content):
    """A bare one with one commit that takes pushes, and the one that it comes from."""
    bare, seed = folder / "repositories/project.git", folder / "seed"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare), cwd=folder)
    git("config", "http.receivepack", "true", cwd=bare)
    git("init", "--quiet", "--initial-branch=main", str(seed), cwd=folder)
    git("config", "core.compression", "0", cwd=seed)  # what is random grows no smaller
    git("config", "core.compression", "0", cwd=bare)
    (seed / "big").write_bytes(content)
    git("add", ".", cwd=seed)
    git("commit", "--quiet", "-m", "one", cwd=seed)
    git("push", "--quiet", str(bare), "main", cwd=seed)
    return bare, seed


@pytest.mark.client("git")
def test_git_clones_and_pushes_with_a_token_that_it_does_not_have(world):
    bare, seed = repository(world.folder, os.urandom(5 << 20))
    url = f"https://{GIT}:{world.upstream.port}/repositories/project.git"
    world.run("git", "clone", "--quiet", url, "copy")
    copy = world.folder / "work/copy"
    assert (copy / "big").read_bytes() == (seed / "big").read_bytes()
    git("config", "core.compression", "0", cwd=copy)
    (copy / "more").write_bytes(os.urandom(5 << 20))  # more than git sends in one piece, so it goes chunked
    git("add", ".", cwd=copy)
    git("commit", "--quiet", "-m", "two", cwd=copy)
    world.run("git", "-C", "copy", "push", "--quiet", "origin", "main")
    assert git("rev-parse", "main", cwd=bare) == git("rev-parse", "HEAD", cwd=copy)

    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    sent = [seen for seen in world.upstream.seen if seen.path.startswith("/repositories/")]
    assert sent
    assert {seen.headers["Authorization"] for seen in sent} == {f"Basic {basic}"}
    assert not held(TOKEN, (copy / ".git/config").read_bytes())


def test_the_journal_has_every_call_by_name_and_no_value(world):
    world.run("curl", "-sSf", f"{world.base}/v1/journal?page=7")
    said = world.keyhole("audit", "query", "--service", "api", "--json").stdout
    assert b"/v1/journal" in said
    assert b"agent/coder" in said
    assert b"api/key" in said
    assert b"page=7" not in said  # too short to be looked for in parts of base64, which turn up by chance
    for value in (KEY, TOKEN):
        assert not held(value, said)
    world.keyhole("audit", "verify")


def test_plain_http_to_a_service_of_https_is_not_lent_anything(world):
    before = len(world.upstream.seen)
    done = world.run("curl", "-sSi", f"http://{API}:{world.upstream.port}/v1/x")
    assert b"X-Keyhole-Error: no_service" in done.stdout
    assert len(world.upstream.seen) == before
