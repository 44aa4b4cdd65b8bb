"""Walk at random over every face of a vault, and hold the journal to one record for each thing that was asked.

    python tests/campaigns/audit_walk.py --steps 500 --seed 1

One server process is asked over its HTTP API, through its proxy (absolute form and CONNECT) and by the command line; a
vault of this machine by the command line alone. Some of what is asked is refused: bad tokens, missing grants, unknown
hosts, requests that cannot be read. Afterwards: each request has exactly one record, and its outcome where one is due,
in the order in which they were made, with the right caller and result; there are no others; and no value that was
planted is in any record, plain, in base64 or in hex.
"""

import argparse
import base64
import http.client
import json
import os
import random
import socket
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli_driver import environment, run, serving, spawn
from keyhole.vault.node import Node

HOST, ELSEWHERE = "api.walk.test", "other.walk.test"
ROOT = "user/root"


@dataclass
class Expected:
    """What the journal must say of one step: so many requests of this caller, with this result where it is known."""

    what: str
    caller: str
    count: int = 1
    result: str | None = None
    id: str = ""


@dataclass
class Walk:
    """The state of a walk, as whoever asks knows it."""

    rng: random.Random
    port: int = 0
    planted: list[str] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)

    def value(self) -> str:
        self.planted.append(f"planted-{self.rng.randbytes(18).hex()}")
        return self.planted[-1]

    def name(self) -> str:
        return f"team{self.rng.randrange(3)}/s{self.rng.randrange(5)}"

    def agent(self) -> str:
        return self.rng.choice(sorted(self.tokens))


@contextmanager
def upstream():
    """Answers every request on loopback, until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(sock):
            with sock, suppress(OSError):
                while sock.recv(65536):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        def serve():
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


class Server:
    """The faces of one server process."""

    def __init__(self, walk, started, token):
        self.walk, self.token = walk, token
        self.api = started["api"].partition("//")[2]
        host, _, port = started["proxy"].partition("//")[2].rpartition(":")
        self.proxy = host, int(port)

    def http(self, method, path, body=None, token=None, raw=None):
        connection = http.client.HTTPConnection(self.api, timeout=30)
        content = raw if raw is not None else None if body is None else json.dumps(body)
        connection.request(method, f"/v1/{path}", content, {"X-Vault-Token": token or self.token})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer, json.loads(text) if text else {}

    def ask(self, what, method, path, body=None, *, token=None, caller=ROOT, result=None, raw=None):
        """One request, and what the journal must say of it: the result that the client was told."""
        answer, data = self.http(method, path, body, token, raw)
        told = answer.headers.get("X-Keyhole-Error", "ok")
        assert result in {None, told}, (what, told, data)
        self.walk.expected.append(Expected(what, caller, 1, told, answer.headers["X-Keyhole-Request-Id"] or ""))
        return data

    def answered(self):
        """How many requests the API has answered, without those for this figure."""
        connection = http.client.HTTPConnection(self.api, timeout=30)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("keyhole_api_responses_total"))

    # Steps over the API.

    def set(self):
        self.ask("set", "POST", f"secret/data/{self.walk.name()}", {"data": {"value": self.walk.value()}}, result="ok")

    def get(self):
        self.ask("get", "GET", f"secret/data/{self.walk.name()}")

    def list(self):
        self.ask("list", "LIST", "secret/metadata/team1")

    def delete(self):
        self.ask("delete", "DELETE", f"secret/data/{self.walk.name()}")

    def undelete(self):
        self.ask("undelete", "POST", f"secret/undelete/{self.walk.name()}", {"versions": [1]})

    def metadata(self):
        body = {"custom_metadata": {"owner": "walk"}}
        self.ask("metadata", "POST", f"secret/metadata/{self.walk.name()}", body)

    def policy(self):
        text = 'path "secret/data/team0/*" { capabilities = ["read"] }'
        self.ask("policy", "PUT", f"sys/policies/acl/walk{self.walk.rng.randrange(4)}", {"policy": text}, result="ok")

    def why(self):
        self.ask("why", "GET", f"sys/why?method=GET&url=http://{HOST}:{self.walk.port}/&agent={self.walk.agent()}")

    def service(self):
        body = {
            "hosts": [f"{HOST}:{self.walk.port}"],
            "schemes": ["http"],
            "secret": "walk/key",
            "inject": {"kind": "bearer"},
            "allow_addresses": ["127.0.0.1/32"],
            "paths": ["/v1/**"],
        }
        self.ask("service", "POST", "services/walk", body, result="ok")

    def grant(self):
        self.ask("grant", "POST", f"agents/{self.walk.agent()}/services/walk", {}, result="ok")

    def take_back(self):
        self.ask("take back", "DELETE", f"agents/{self.walk.agent()}/services/walk")

    def agent(self):
        name = f"a{self.walk.rng.randrange(4)}"
        self.ask("agent", "POST", f"agents/{name}", {}, result="ok")
        made = self.ask("token", "POST", f"agents/{name}/token", {"ttl": "1h"}, result="ok")
        self.walk.tokens[name] = (made.get("data") or made["auth"]).get("token") or made["auth"]["client_token"]
        self.walk.planted.append(self.walk.tokens[name])

    def agent_reads(self):
        name = self.walk.agent()
        token = self.walk.tokens[name]
        path = f"secret/data/{self.walk.name()}"
        self.ask("agent reads", "GET", path, token=token, caller=f"agent/{name}", result="policy_denied")

    def stranger(self):
        guess = f"hvs.{self.walk.value()}"
        self.ask("stranger", "GET", "secret/data/team0/s0", token=guess, caller="", result="unauthenticated")

    def nonsense(self):
        raw = json.dumps({"data": self.walk.value()})[:-3]
        self.ask("nonsense", "POST", "secret/data/team0/s0", caller="", result="invalid_request", raw=raw)

    # Steps through the proxy.

    def exchange(self, lines):
        with socket.create_connection(self.proxy, timeout=30) as sock:
            for line in lines:
                sock.sendall(line)
                head = b""
                while b"\r\n\r\n" not in head:
                    part = sock.recv(65536)
                    assert part, "the proxy hung up"
                    head += part
                if not head.startswith(b"HTTP/1.1 200"):
                    break
        fields = dict(line.partition(": ")[::2] for line in head.decode("latin-1").split("\r\n"))
        return fields.get("X-Keyhole-Error", "ok"), fields.get("X-Keyhole-Request-Id", "")

    def call(self, what, host, path, token, caller, *, tunnel):
        login = base64.b64encode(f"agent:{token}".encode()).decode()
        authority = f"{host}:{self.walk.port}"
        query = f"?key={self.walk.value()}"
        proves = f"Proxy-Authorization: Basic {login}\r\n"
        asks = f"X-Key: {self.walk.value()}\r\nHost: {authority}\r\n"
        if tunnel:
            opens = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{proves}\r\n"
            lines = [opens, f"GET {path}{query} HTTP/1.1\r\n{asks}\r\n"]
        else:
            lines = [f"GET http://{authority}{path}{query} HTTP/1.1\r\n{asks}{proves}\r\n"]
        told, name = self.exchange([line.encode() for line in lines])
        self.walk.expected.append(Expected(what, caller, 1, told, name))

    def proxied(self):
        name, rng = self.walk.agent(), self.walk.rng
        host = rng.choice([HOST, HOST, HOST, ELSEWHERE])
        path = rng.choice(["/v1/x", "/v1/y", "/admin"])
        self.call("call", host, path, self.walk.tokens[name], f"agent/{name}", tunnel=rng.random() < 0.5)

    def proxied_stranger(self):
        self.call("strange call", HOST, "/v1/x", self.walk.value(), "", tunnel=self.walk.rng.random() < 0.5)

    def proxied_nonsense(self):
        told, name = self.exchange([f"GET /{self.walk.value()} HTTP/1.1\r\nHost: x\r\n\r\n".encode()])
        self.walk.expected.append(Expected("unreadable", "", 1, told, name))

    # The command line against the server.

    def command(self):
        before = self.answered()
        with mock.patch.dict(os.environ, {"KEYHOLE_ADDR": f"http://{self.api}", "KEYHOLE_TOKEN": self.token}):
            what, code = typed(self.walk)
        asked = self.answered() - before - 1  # the first look at the figure is counted in the second
        self.walk.expected.append(Expected(f"keyhole {what}", ROOT, asked, _result(what, code, asked)))


def typed(walk):
    """One command of a person; its words, and how it ended."""
    name, agent = walk.name(), walk.agent() if walk.tokens else "nobody"
    commands = [
        ["set", name],
        ["get", name, "--reveal"],
        ["list"],
        ["show", name],
        ["history", name],
        ["rm", name],
        ["agent", "list"],
        ["service", "list"],
        ["why", "GET", f"http://{HOST}/v1/x", "--agent", agent],
        ["policy", "list"],
        ["grant", agent, "walk"],
        ["revoke", agent, "walk"],
    ]
    words = walk.rng.choice(commands)
    ran = run(*words, stdin=walk.value() if words[0] == "set" else b"")
    assert ran.code in {0, 1, 4, 5}, ran
    assert "Traceback" not in ran.err, ran
    return " ".join(words[:2]), ran.code


def _result(what, code, asked):
    """The result of a command's one request where its exit code says it; an empty list is well, and not found."""
    return "ok" if asked == 1 and code in {0, 1} and not what.endswith("list") else None


class Local:
    """A vault of this machine, asked by the command line in this process."""

    def __init__(self, walk, home):
        self.walk, self.home = walk, home

    def command(self):
        asked = []
        handle = Node.handle

        async def counted(node, request):
            asked.append(request.path)
            return await handle(node, request)

        with mock.patch.dict(os.environ, {"KEYHOLE_HOME": self.home}), mock.patch.object(Node, "handle", counted):
            what, code = typed(self.walk)
        self.walk.expected.append(
            Expected(f"keyhole {what}", "user/owner", len(asked), _result(what, code, len(asked)))
        )


def check(walk, records):
    """Hold the records, in the order of the journal, to what was asked."""
    starts = [record for record in records if record["phase"] in {"intent", "refused"}]
    outcomes = {}
    for record in records:
        if record["phase"] == "outcome":
            assert record["id"] not in outcomes, ("two outcomes", record)
            outcomes[record["id"]] = record
    intents = {record["id"] for record in starts if record["phase"] == "intent"}
    assert outcomes.keys() == intents, outcomes.keys() ^ intents
    assert len({record["id"] for record in starts}) == len(starts)
    place = 0
    for step in walk.expected:
        mine = starts[place : place + step.count]
        place += step.count
        assert len(mine) == step.count, ("a record is missing", step)
        for record in mine:
            end = outcomes.get(record["id"], record)
            assert record.get("caller", "") == step.caller, (step, record)
            assert step.id in {"", record["id"]}, (step, record)
            assert step.result in {None, end["result"]}, (step, end)
            assert end.get("caller", "") == step.caller
    assert place == len(starts), ("nobody asked for", starts[place:])
    text = json.dumps(records)
    for value in walk.planted:
        for form in forms(value):
            assert form not in text, "a planted value is in the journal"
    return len(starts)


def forms(value):
    """Plain, in hex, and in base64 at each alignment without what depends on neighbours."""
    raw = value.encode()
    yield value
    yield raw.hex()
    yield raw.hex().upper()
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b":" * shift + raw).decode().rstrip("=")[4 if shift else 0 : -4]


def campaign(folder, steps, seed, *, report=print):
    """Walk on a server and on a local vault; raises ``AssertionError`` where the journal is wrong."""
    folder = Path(folder)
    limits = {"KEYHOLE_REFUSAL_BURST": "1000000", "KEYHOLE_RESOLVE": f"{HOST}:127.0.0.1,{ELSEWHERE}:127.0.0.1"}
    clean = {**environment(**limits), "KEYHOLE_HOME": str(folder / "home")}
    (folder / "keys").mkdir(mode=0o700)
    seal = ["--seal", f"keyfile:{folder / 'keys' / 'key'}"]
    for name in ("KEYHOLE_ADDR", "KEYHOLE_TOKEN", "KEYHOLE_VAULT"):
        clean.pop(name, None)
    with mock.patch.dict(os.environ, clean, clear=True), upstream() as port:
        figures = (_on_server(folder, steps * 4 // 5, seed, clean, port), _on_local(folder, seal, steps // 5, seed))
    report(f"seed {seed}: {steps} steps, {figures[0]} requests of the server and {figures[1]} of the local vault")
    return figures


def _on_server(folder, steps, seed, env, port):
    walk = Walk(random.Random(seed), port)
    with serving("--dev", "--dev-root-token-id", "root-of-the-walk", "--data", folder / "data", env=env) as (
        _,
        started,
    ):
        server = Server(walk, started, "root-of-the-walk")
        server.ask("key", "POST", "secret/data/walk/key", {"data": {"value": walk.value()}})
        server.service()
        server.agent()
        server.grant()
        actions = [getattr(server, name) for name in STEPS]
        for _ in range(steps):
            walk.rng.choice(actions)()
        checked = server.http("GET", "sys/audit-log/verify")[1]["data"]
        assert checked["valid"], checked
        walk.expected.append(Expected("verify", ROOT, 1, "ok"))
        records = server.http("GET", "sys/audit-log?limit=100000")[1]["data"]["records"]
    return check(walk, _before_the_query(records))


def _on_local(folder, seal, steps, seed):
    walk = Walk(random.Random(seed))
    made = spawn("init", *seal, "--make-keyfile", "-q", env=dict(os.environ))
    assert made.code == 0, made
    local = Local(walk, str(folder / "home"))
    for _ in range(steps):
        local.command()
    assert run("audit", "verify").code == 0
    walk.expected.append(Expected("audit verify", "user/owner", 1, "ok"))
    return check(walk, _before_the_query(run("audit", "query", "--limit", "100000", "--json").json))


def _before_the_query(records):
    """Without the query for these records, whose outcome is not there yet."""
    ordered = sorted(records, key=lambda record: (record["writer"], record["sequence"]))
    assert ordered[-1]["path"] == "sys/audit-log"
    return ordered[:-1]


STEPS = (
    *(
        "set",
        "get",
        "list",
        "delete",
        "undelete",
        "metadata",
        "policy",
        "why",
        "service",
        "grant",
        "take_back",
        "agent",
    ),
    *("agent_reads", "stranger", "nonsense", "proxied", "proxied", "proxied", "proxied_stranger", "proxied_nonsense"),
    *("command", "command", "command"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhole-walk-") as folder:
        campaign(folder, options.steps, options.seed)


if __name__ == "__main__":
    main()
