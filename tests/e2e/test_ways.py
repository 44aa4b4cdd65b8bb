"""The other ways in: a server for many, its proxy without `keyhole run`, one call, and Python."""

import json
import subprocess
import sys

import pytest

from cli_driver import serving
from e2e.world import API, KEY, held

CALL = """
import sys
from keyhole import Client
with Client() as vault:
    answer = vault.call("GET", sys.argv[1], bearer="api/key")
    print(answer.status, answer.json()["ok"])
"""


@pytest.fixture(scope="module")
def served(world):
    """The world's clients, with a server in place of the local vault; gives the environment of its administrator."""
    options = ("--dev", "--dev-root-token-id", "root", "--data", str(world.folder / "served"))
    with serving(*options, env=world.env) as (_, started):
        ours = {name: text for name, text in world.env.items() if not name.startswith("KEYHOLE_")}
        world.names |= started
        env = ours | {
            "KEYHOLE_ADDR": started["api"],
            "KEYHOLE_TOKEN": "root",
            "KEYHOLE_HOME": str(world.folder / "none"),
        }
        loopback = ("--allow-address", "127.0.0.1/32")
        for words, given in (
            (("set", "api/key"), KEY.encode()),
            (
                ("service", "add", "api", "--host", f"{API}:{world.upstream.port}", "--secret", "api/key", "--bearer"),
                b"",
            ),
            (("agent", "add", "coder"), b""),
            (("grant", "coder", "api"), b""),
        ):
            more = loopback if words[0] == "service" else ()
            assert _keyhole(world, env, *words, *more, given=given).returncode == 0
        yield env


def _keyhole(world, env, *words, given=b""):
    command = [world.program, *words]
    return subprocess.run(command, input=given, env=env, cwd=world.folder / "work", capture_output=True, check=False)


def test_run_against_a_server_goes_through_the_servers_proxy(world, served):
    done = _keyhole(world, served, "run", "--agent", "coder", "--", "curl", "-sSf", f"{world.base}/v1/served")
    assert json.loads(done.stdout)["ok"] is True
    assert [seen.headers["Authorization"] for seen in world.upstream.seen if seen.path == "/v1/served"] == [
        f"Bearer {KEY}"
    ]
    tokens = _keyhole(world, served, "agent", "show", "coder", "--json")
    assert json.loads(tokens.stdout)["tokens"] == 0


def test_any_client_with_a_token_can_use_the_proxy_by_its_variables_alone(world, served):
    token = json.loads(_keyhole(world, served, "agent", "token", "coder", "--ttl", "5m", "--json").stdout)["token"]
    proxy = world.names["proxy"].replace("://", f"://agent:{token}@")
    env = {"PATH": world.env["PATH"], "HTTPS_PROXY": proxy, "CURL_CA_BUNDLE": world.names["ca_file"]}
    url = f"{world.base}/v1/variables"
    done = subprocess.run(["curl", "-sSf", url], env=env, capture_output=True, check=False)
    assert json.loads(done.stdout)["ok"] is True
    assert _keyhole(world, served, "agent", "revoke", "coder").returncode == 0
    done = subprocess.run(["curl", "-sSi", url], env=env, capture_output=True, check=False)
    assert b"407" in done.stdout.splitlines()[0]
    assert len([seen for seen in world.upstream.seen if seen.path == "/v1/variables"]) == 1


@pytest.mark.parametrize("place", ["local", "server"])
def test_one_call_names_the_secret_and_gets_the_answer(world, served, place):
    env = world.env if place == "local" else served
    done = _keyhole(world, env, "call", f"{world.base}/v1/call", "--bearer", "api/key", "--data", "x", "--json")
    said = json.loads(done.stdout)
    assert (said["status"], json.loads(said["body"]), said["service"]) == (200, {"ok": True, "got": 1}, "api")
    echoed = _keyhole(world, env, "call", f"{world.base}/echo", "--bearer", "api/key", "-i")
    assert echoed.stdout.startswith(b"HTTP 200\n")
    assert not held(KEY, echoed.stdout)
    denied = _keyhole(world, env, "call", f"https://{API}:1/", "--bearer", "api/key")
    assert denied.returncode == 4


@pytest.mark.parametrize("place", ["local", "server"])
def test_python_finds_the_vault_and_makes_a_call(world, served, place):
    env = world.env if place == "local" else served
    command = [sys.executable, "-c", CALL, f"{world.base}/v1/python"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "200 True\n", done.stderr


def test_the_agents_own_token_cannot_start_anything_or_read(world, served):
    token = json.loads(_keyhole(world, served, "agent", "token", "coder", "--ttl", "5m", "--json").stdout)["token"]
    env = served | {"KEYHOLE_TOKEN": token}
    assert _keyhole(world, env, "get", "api/key").returncode == 4
    assert _keyhole(world, env, "run", "--agent", "coder", "--", "true").returncode == 125
    assert _keyhole(world, env, "agent", "list").returncode == 4


OWN = """
title = "Acme"
variables = ["ACME_KEY"]
settings = { ACME_URL = "https://{host}" }
key_page = { host = "{host}", path = "/" }
[key]
pattern = "sk_e2e_.+"
placeholder = "sk_e2e_keyhole"
length = 40
[blank.host]
ask = "Host of Acme"
kind = "host"
[[service]]
name = "acme"
hosts = ["{host}"]
paths = ["/v1/acme/**"]
inject = { kind = "bearer" }
[test]
path = "/v1/acme/me"
contains = '"ok":true'
"""
NEAR = """
from keyhole import Client
with Client() as vault:
    data = vault.read("services/acme").data
    vault.write("services/acme", {**data, "allow_addresses": ["127.0.0.1/32"]})
"""
NARROW = """
from keyhole import Client
with Client() as vault:
    data = vault.read("services/wrong").data
    vault.write("services/wrong", {**data, "test": {"path": "/never/mind", "limited_by": '"unknownkey"'}})
"""


def test_an_entry_of_ones_own_leads_an_unchanged_client_to_the_api(world):
    host = f"{API}:{world.upstream.port}"
    (world.folder / "work" / "acme.toml").write_text(OWN)
    world.keyhole("catalog", "add", "acme.toml")
    world.keyhole("add", "acme", "--agent", "coder", "--host", f"https://{host}/", given=KEY.encode())
    subprocess.run([sys.executable, "-c", NEAR], env=world.env, check=True)  # the upstream of a test is on loopback

    tested = world.keyhole("service", "test", "acme")
    assert f"https://{host}/v1/acme/me: 200\naccepted".encode() in tested.stdout
    script = 'curl -sSf -H "Authorization: Bearer $ACME_KEY" $ACME_URL/v1/acme/things; echo " $ACME_KEY"'
    done = world.run("sh", "-c", script)
    assert b'"ok": true' in done.stdout
    assert b" sk_e2e_keyhole" in done.stdout
    world.keyhole("service", "rm", "acme")
    world.keyhole("catalog", "rm", "acme")


def test_service_test_says_whether_the_api_takes_the_key(world):
    port = world.upstream.port
    add = ("--secret", "api/wrong", "--bearer", "--allow-address", "127.0.0.1/32")
    world.keyhole("set", "api/wrong", given=b"sk_of_nobody_at_all_0001")
    world.keyhole("service", "add", "wrong", "--host", f"{API}:{port}", "--path", "/never/**", *add)
    world.keyhole("service", "add", "gone", "--host", f"{API}:1", *add)

    accepted = world.keyhole("service", "test", "api", "/v1/tested")
    assert f"{API}:{port}/v1/tested: 200\naccepted: the API takes the key api/key".encode() in accepted.stdout
    refused = world.keyhole("service", "test", "wrong", "/never/mind", code=1)
    assert b"refused: the API does not take the key api/wrong" in refused.stdout
    subprocess.run([sys.executable, "-c", NARROW], env=world.env, check=True)
    limited = world.keyhole("service", "test", "wrong", code=1)
    assert b"limited: the API knows the key api/wrong" in limited.stdout
    unreachable = world.keyhole("service", "test", "gone", code=6)
    assert b"the API could not be reached" in unreachable.stderr
    for name in ("wrong", "gone"):
        world.keyhole("service", "rm", name)
