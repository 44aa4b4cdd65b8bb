"""The published SDK of AgentSecrets, as it is, in `keyhole run`; and its wire contract where the SDK does not go."""

import base64
import gzip
import json
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from e2e.internet import PROGRAMS, client
from e2e.world import API, GIT, KEY, KEYHOLE, Said, held

LARGE = 80 * 65536
PLACEHOLDER = "sk_as_keyhole_placeholder_000001"
# What the agent may use: how each path binds the same secret, and two that go with another or to another host.
WAYS = {
    "bearer": {"kind": "bearer"},
    "header": {"kind": "header", "name": "X-Api-Key"},
    "query": {"kind": "query", "name": "api_key"},
    "body": {"kind": "body", "field": "auth.api_key"},
    "form": {"kind": "form", "field": "client_Secret"},
}
FURNISH = """
import json, sys
from keyhole import Client
port, ways, key = json.load(sys.stdin)
kh = Client()
kh.write("agents/classic")
kh.write("secret/data/as/login", {"data": {"value": "no-colon-in-here"}})
kh.write("secret/data/as/pair", {"data": {"id": "id-0123456789abcdef", "key": key}})
common = {"hosts": [f"API:{port}"], "allow_addresses": ["127.0.0.1/32"]}
named = {"secret": "api/key", "variables": ["STRIPE_KEY"], "placeholder": "PLACEHOLDER"}
services = {f"as-{name}": {**common, **named, "paths": [f"/as/{name}"], "inject": how} for name, how in ways.items()}
services["as-bearer"]["paths"] = []
services["as-login"] = {**common, "paths": ["/as/login"], "secret": "as/login", "inject": {"kind": "basic"}}
both = [{"kind": "header", "name": "X-Id", "from": "id"}, {"kind": "query", "name": "key", "from": "key"}]
services["as-pair"] = {
    **common, "paths": ["/as/pair"], "secret": "as/pair", "inject": {"kind": "several", "each": both},
    "variables": {"PAIR_ID": "id", "PAIR_KEY": "key"},
    "placeholders": {"id": "id-pl-00000001", "key": "key-pl-00000001"},
}
services["as-git"] = {**common, "hosts": [f"GIT:{port}"], "secret": "git/token", "inject": {"kind": "bearer"}}
for name, data in services.items():
    kh.write(f"services/{name}", data)
    kh.write(f"agents/classic/services/{name}")
kh.close()
"""


def _echo(seen):
    """All that reached the API, but not the key: whether it did is another question."""
    url = urlsplit(seen.path)
    names = {name: len(values) for name, values in parse_qs(url.query).items()}
    sent = [*seen.headers.values(), *(value for values in parse_qs(url.query).values() for value in values)]
    has = any(KEY in value for value in sent)
    return Said(json.dumps({"path": url.path, "query": names, "headers": list(seen.headers), "has": has}).encode())


def _leaks() -> bytes:
    pieces = [KEY.encode(), base64.b64encode(KEY.encode()), base64.b64encode(b"user:" + KEY.encode())]
    pieces += [quote(KEY, safe="").encode(), json.dumps(KEY).encode()]
    return b'{"said": "' + b" | ".join(pieces).replace(b'"', b"'") + b'"}'


def _leaks_zipped(seen):
    assert "gzip" in seen.headers["Accept-Encoding"]
    return Said(gzip.compress(_leaks()), 200, {"Content-Encoding": "gzip", "X-Echo": KEY})


def _body(seen):
    if seen.headers["Content-Type"] == "application/json":
        data = json.loads(seen.body)
        right = data == {"a": 1, "auth": {"api_key": KEY}}
    else:
        right = parse_qs(seen.body.decode()) == {"a": ["1"], "client_Secret": [KEY]}
    return Said(json.dumps({"right": right}).encode())


@pytest.fixture(scope="module")
def classic(world):
    """The agent `classic`, whose services bind the key of the API in every way."""
    program = FURNISH.replace("API:", f"{API}:").replace("GIT:", f"{GIT}:").replace("PLACEHOLDER", PLACEHOLDER)
    given = json.dumps([world.upstream.port, WAYS, KEY])
    subprocess.run([sys.executable, "-c", program], input=given, env=world.env, text=True, check=True)
    there = f"https://{GIT}:{world.upstream.port}/as/stolen"
    world.upstream.pages |= {
        "/as/bearer": _echo,
        "/as/header": _echo,
        "/as/query": _echo,
        "/as/pair": _echo,
        "/as/gzip": _leaks_zipped,
        "/as/error": lambda _seen: Said(_leaks(), 402, {"X-Echo": f"Bearer {KEY}"}),
        "/as/moved": lambda _seen: Said(b"", 302, {"Location": there}),
        "/as/stolen": _echo,
        "/as/body": _body,
        "/as/form": _body,
        "/as/large": lambda seen: Said([b"y" * 65536] * (len(seen.body) // 65536)),
    }
    return world


def _run(world, *command, options=(), code=0):
    path = f"{Path(KEYHOLE).parent}:{world.env['PATH']}"
    done = world.keyhole("run", "--agent", "classic", *options, "--", *command, code=code, PATH=path)
    assert not held(KEY, done.stdout + done.stderr)
    return done


@pytest.fixture(scope="module")
def said(classic):
    """What the SDK says of all its calls."""
    before = len(classic.upstream.seen)
    stranger = f"https://{GIT}:{classic.upstream.port}"
    done = _run(classic, client("python"), str(PROGRAMS / "agentsecrets_sdk.py"), classic.base, stranger)
    found = json.loads(done.stdout)
    found["seen"] = classic.upstream.seen[before:]
    return found


@pytest.mark.client("AgentSecrets SDK")
def test_requests_httpx_async_and_call_reach_the_api_with_the_key(said):
    assert said["health"] == "classic"
    for name in ("requests", "httpx", "async", "header"):
        status, text, _ = said[name]
        assert (status, json.loads(text)["has"]) == (200, True), name
    assert json.loads(said["requests"][1])["query"] == {"a": 1}
    [seen] = [seen for seen in said["seen"] if seen.path.startswith("/as/bearer?a=")]
    assert seen.path == "/as/bearer?a=b%20c"
    assert not any(name.lower().startswith(("x-as-", "x-keyhole", "proxy-")) for name in seen.headers)
    assert seen.headers["Host"].startswith(API)
    assert json.loads(said["call"][1]) == {"right": True}


@pytest.mark.client("AgentSecrets SDK")
def test_the_case_of_a_parameter_is_kept(said):
    assert json.loads(said["async call"][1])["query"] == {"q": 1, "api_key": 1}
    [seen] = [seen for seen in said["seen"] if seen.path.startswith("/as/header")]
    assert seen.headers["X-Api-Key"] == KEY
    assert json.loads(seen.body) == {"n": 1}


@pytest.mark.client("AgentSecrets SDK")
def test_no_answer_has_the_key_in_any_form(said):
    printed = json.dumps({name: value for name, value in said.items() if name != "seen"}).encode()
    assert not held(KEY, printed)
    for name in ("gzip", "httpx gzip", "async gzip"):
        status, text, headers = said[name]
        assert (status, text.count("*****") >= 5) == (200, True), name
        assert KEY not in str(headers)
    assert {name.lower() for name in headers} >= {"x-echo", "content-type"}
    for name in ("error", "async error"):
        assert said[name][0] == 402
        assert "*****" in said[name][1]


@pytest.mark.client("AgentSecrets SDK")
def test_a_redirect_takes_no_key_along(said):
    assert said["moved"][0] == said["httpx moved"][0] == 302
    assert said["moved on"][0] in {200, 403, 404}
    stolen = [seen for seen in said["seen"] if seen.path == "/as/stolen"]
    assert not any(KEY in value for seen in stolen for value in seen.headers.values())


@pytest.mark.client("AgentSecrets SDK")
def test_a_host_that_is_not_bound_to_the_secret_is_refused(said):
    for name, host in (("stranger", GIT), ("elsewhere", "evil.example.test")):
        status, text, _ = said[name]
        data = json.loads(text)
        assert (status, data["error"], data["domain"]) == (403, "domain_not_in_allowlist", host)
        assert data["message"].startswith(f"{host} is not in your workspace allowlist.")
    assert said["call elsewhere"][0] == "DomainNotAllowed"


@pytest.mark.client("AgentSecrets SDK")
def test_an_unknown_secret_is_said_to_be_unknown(said):
    status, text, _ = said["unknown"]
    assert status == 502
    assert json.loads(text)["error"].startswith("secret 'NO_SUCH' not found in keychain")


@pytest.mark.client("AgentSecrets SDK")
def test_what_the_sdk_starts_and_what_is_large(said):
    assert said["spawn"]["exit_code"] == 3
    assert KEY not in said["spawn"]["stdout"]
    assert said["spawn"]["stdout"].startswith("sk_as_")
    assert said["large"] == [200, LARGE]
    assert said["logs"][-1] == [403, "BLOCKED", "domain_not_in_allowlist", "https://evil.example.test/x"]
    assert said["logs"][-2] == [200, "OK", "-", said["logs"][-2][3]]


@pytest.mark.client("AgentSecrets SDK")
def test_what_the_port_refuses_is_on_record(classic, said):
    records = json.loads(classic.keyhole("audit", "query", "--agent", "agent/classic", "--json").stdout)
    refused = {(r.get("host"), r.get("target")) for r in records if r["phase"] == "refused"}
    assert ("evil.example.test:443", "/x") in refused or ("evil.example.test:443", None) in refused
    assert (f"{API}:{classic.upstream.port}", "/as/bearer") in refused
    assert not held(KEY, json.dumps(records).encode())


CURL = """
as() {
    curl -sS --noproxy '*' -w '\\n%{http_code}\\n' "http://127.0.0.1:$AGENTSECRETS_PORT/proxy" -H "X-AS-Target-URL: $@"
}
"""


def _curl(world, *requests):
    """Status and body of each request, which is a URL and what curl gets besides."""
    lines = [f"as {' '.join(repr(word) for word in words)}" for words in requests]
    done = _run(world, "sh", "-c", CURL + "\n".join(lines))
    said = done.stdout.decode().splitlines()
    return [(int(code), json.loads(text)) for text, code in zip(said[::2], said[1::2], strict=True)]


def test_the_wire_contract(classic):
    base = classic.base
    before = len(classic.upstream.seen)
    key = "X-AS-Inject-Bearer: STRIPE_KEY"
    answers = _curl(
        classic,
        (f"{base}/as/query", "-H", "X-AS-Inject-Query-api_key: STRIPE_KEY"),
        (f"{base}/as/query", "-H", "x-as-inject-query-API_KEY: api/key"),
        (f"{base}/as/form", "-d", "a=1", "-H", "X-AS-Inject-Form-client_Secret: STRIPE_KEY"),
        (f"{base}/as/body", "-d", '{"a": 1}', "-H", "X-AS-Inject-Body-auth-api_key: STRIPE_KEY"),
        (f"{base}/as/pair", "-H", "X-AS-Inject-Header-X-ID: PAIR_ID", "-H", "X-AS-Inject-Query-key: PAIR_KEY"),
        (f"{base}/as/bearer", "-H", key, "-H", "X-Own: 1", "-H", "X-AS-Session-Token: t", "-H", "X-AS-Method: put"),
        (f"{base}/as/bearer",),
        ("", "-H", key),
        (f"{base}/as/bearer#x", "-H", key),
        (f"{base}/as/login", "-H", "X-AS-Inject-Basic: AS_LOGIN"),
        (f"{base}/as/bearer", "-H", key, "-H", "X-AS-Inject-Basic: AS_LOGIN"),
        (f"{base}/as/login", "-H", "X-AS-Inject-Bearer: AS_LOGIN"),
        (f"http://{API}:1/x", "-H", key),
        (f"{base}/as/bearer", "-H", key, "-H", "Origin: https://page.example"),
        (f"{base}/as/bearer", "-H", key, "-H", "Sec-Fetch-Site: cross-site"),
        (f"{base}/as/bearer", "-H", 'X-AS-Inject-Bearer: a"b'),
    )
    assert [status for status, _ in answers[:6]] == [200] * 6
    query, caseless, form, body, pair, bearer = (data for _, data in answers[:6])
    assert query["query"] == caseless["query"] == {"api_key": 1}
    assert form == body == {"right": True}
    assert (pair["query"], pair["has"]) == ({"key": 1}, True)
    assert "X-Id" in [name.title() for name in pair["headers"]]
    assert "X-As-Session-Token" not in [name.title() for name in bearer["headers"]]
    assert "X-Own" in [name.title() for name in bearer["headers"]]
    assert [seen.method for seen in classic.upstream.seen[before:]] == ["GET", "GET", "POST", "POST", "GET", "PUT"]
    assert answers[6] == (400, {"error": "At least one X-AS-Inject-* header is required"})
    assert answers[7] == (400, {"error": "X-AS-Target-URL header is required"})
    assert answers[8][0] == 400
    what = "injection failed for AS_LOGIN (basic): basic auth secret must be in format username:password"
    assert answers[9] == (502, {"error": what})
    assert [(status, data["error"]) for status, data in answers[10:13]] == [
        (403, "injection_not_bound"),
        (403, "injection_not_bound"),
        (403, "domain_not_in_allowlist"),
    ]
    assert [status for status, _ in answers[13:]] == [403, 403, 502]
    assert answers[15][1]["error"].startswith("secret 'a\"b' not found in keychain")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_the_port_can_be_named_and_belongs_to_the_command(classic):
    port = _free_port()
    url = f"http://127.0.0.1:{port}/health"
    # By itself, through the proxy of the environment, and in a tunnel of that proxy.
    script = f'echo "$AGENTSECRETS_PORT"; curl -s --noproxy "*" {url}; curl -s {url}; curl -sp {url}; read line'
    command = [
        KEYHOLE,
        "run",
        "--agent",
        "classic",
        "--agentsecrets-port",
        str(port),
        "--network",
        "host",
        "--",
        "sh",
        "-c",
        script,
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=classic.env, cwd=classic.folder / "work", **pipes)
    assert int(process.stdout.readline()) == port
    try:
        again = ["curl", "-sS", "-w", "%{http_code}", "--noproxy", "*", url]
        stranger = subprocess.run(again, capture_output=True, check=True)
        assert stranger.stdout == b"403"
    finally:
        said = process.communicate(b"\n", timeout=60)
    assert said[0] == b'{"project":"classic","status":"ok"}' * 3
    assert b"a process outside the command tried to use its AgentSecrets port, and was refused" in said[1]


def test_the_command_outside_of_a_session_makes_one_for_itself(classic):
    program = str(Path(KEYHOLE).with_name("agentsecrets"))
    words = ["call", "--url", f"{classic.base}/as/query", "--query", "api_key=STRIPE_KEY", "--token", "CLASSIC_TOKEN"]
    done = subprocess.run(
        [program, *words], env=classic.env, cwd=classic.folder / "work", capture_output=True, check=True
    )
    status, _, body = done.stdout.partition(b"\n\n")
    assert status == b"HTTP 200"
    assert json.loads(body)["query"] == {"api_key": 1}
    classic.keyhole("agent", "add", "idle")
    idle = [program, *words[:-1], "IDLE_TOKEN", "--output", "json"]
    done = subprocess.run(idle, env=classic.env, cwd=classic.folder / "work", capture_output=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, 403)
    assert json.loads(done.stdout)["error"].startswith("empty_allowlist: ")
