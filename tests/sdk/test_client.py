"""The TypeScript client against a real server and its broker."""

import gzip
import json
import subprocess

import pytest
import trustme

from cli_driver import environment, serving
from e2e.world import API, KEY, Said, Upstream
from keyhole.client import Client
from keyhole.core.errors import NoService
from sdk import built

SITE = "site.example.test"


def site(seen):
    match seen.path:
        case "/redirect":
            return Said(status=302, headers={"Location": "/landed"})
        case "/round":
            return Said(status=307, headers={"Location": "/round"})
        case "/packed":
            return Said(gzip.compress(b"packed " * 1000), headers={"Content-Encoding": "gzip"})
        case "/chunks":
            return Said([b"one ", b"two ", b"three"])
        case "/nothing":
            return Said(status=204)
    return Said(f"{seen.method} {seen.path}".encode())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server, two upstreams and an agent that may use both."""
    folder, authority = tmp_path_factory.mktemp("world"), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    upstream = Upstream(authority, API)
    upstream.sites = {f"{SITE}:{upstream.port}": site}
    other = Upstream(authority, SITE, sites={})
    other.sites = {f"{SITE}:{other.port}": site}
    words = ["--dev", "--dev-root-token-id", "root-token-of-the-test", "--upstream-ca", str(folder / "ca.pem")]
    words += ["--resolve", f"{API}:127.0.0.1", "--resolve", f"{SITE}:127.0.0.1"]
    env = environment(KEYHOLE_HOME=str(folder / "home"), HOME=str(folder))
    with serving(*words, env=env) as (_, told), Client(told["api"], token=told["root_token"]) as client:
        loopback = {"allow_addresses": ["127.0.0.1/32"]}
        client.write("secret/data/api/key", {"data": {"value": KEY}})
        hosts = {"api": (API, upstream.port, ["/v1/**", "/echo"]), "site": (SITE, other.port, ["/**"])}
        client.write("agents/coder")
        for name, (host, port, paths) in hosts.items():
            bound = {"hosts": [f"{host}:{port}"], "paths": paths, "secret": "api/key", "inject": {"kind": "bearer"}}
            client.write(f"services/{name}", bound | loopback)
            client.write(f"agents/coder/services/{name}", {})
        token = client.write("agents/coder/token", {"ttl": "1h"}).data["token"]
        given = {
            "base": f"https://{API}:{upstream.port}",
            "site": f"https://{SITE}:{other.port}",
            "token": token,
            "key": KEY,
        }
        env |= {"KEYHOLE_ADDR": told["api"], "KEYHOLE_TOKEN": told["root_token"], "SDK_WORLD": json.dumps(given)}
        yield env
    upstream.close()
    other.close()


def test_it_asks_the_server_and_calls_through_the_broker(world):
    command = [built.node(), "--test", "--test-reporter=spec", "test/world/client.test.js"]
    done = subprocess.run(command, cwd=built.built(), env=world, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert KEY.encode() not in done.stdout


def test_a_secret_that_no_service_binds_like_this_is_told_as_that_in_python_too(world):
    given = json.loads(world["SDK_WORLD"])
    with Client(world["KEYHOLE_ADDR"], token=given["token"]) as agent, pytest.raises(NoService):
        agent.call("GET", f"{given['base']}/v1/x", basic="api/key")
