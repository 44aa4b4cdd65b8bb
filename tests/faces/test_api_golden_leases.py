"""Leases and wrapping against what a real Vault (1.8) answered. Engines that lease stand in for those it had."""

import json
from pathlib import Path

from faces.api_client import Client
from keyhole.testing import FrozenClock
from vault.lab import Lab
from vault.world import play

FOLDER = Path(__file__).resolve().parents[1] / "data" / "vault-golden"

# What is asked, and what of it differs here -> why.
DIFFERENT = {
    # Vault keeps tokens among its leases; here they are apart, and so not listed with them.
    "sys/leases/lookup/": {"keys": ["pki/"]},
}
# Fields whose values depend on the time or are random; the others are compared as they are.
LOOSE = {"expire_time", "issue_time", "creation_time", "username", "password", "token", "accessor", "client_token"}
LOOSE |= {"wrapped_accessor", "metadata", "mfa_requirement", "num_uses"}


class Replay:
    """Sends what was recorded, with our ids and tokens in place of theirs."""

    def __init__(self, ask):
        self.ask = ask
        self.ours = {"s.3ZQQSVHIFoCe3QShWN9farUk": "root"}
        self.latest = self.wrap = "none"

    async def send(self, exchange):
        token = {"latest": self.latest, "wrap": self.wrap}.get(exchange["auth"], "root")
        text = json.dumps(exchange["body"])
        path = exchange["path"]
        for theirs, ours in self.ours.items():
            text, path = text.replace(theirs, ours), path.replace(theirs, ours)
        body = None if exchange["body"] is None else json.loads(text)
        headers = [(name.lower().encode(), value.encode()) for name, value in exchange["headers"].items()]
        answer = await self.ask(exchange["method"], path, body, token=token, headers=headers)
        self.learn(exchange["json"] or {}, answer.json)
        return answer

    def learn(self, theirs, ours):
        if theirs.get("lease_id"):
            self.ours[theirs["lease_id"]] = ours["lease_id"]
        if theirs.get("auth"):
            self.latest = self.ours[theirs["auth"]["client_token"]] = ours["auth"]["client_token"]
        if theirs.get("wrap_info"):
            self.wrap = self.ours[theirs["wrap_info"]["token"]] = ours["wrap_info"]["token"]


def differences(replay, exchange, answer):
    """What a client would notice."""
    where = f"{exchange['note']} {exchange['method']} {exchange['path']} {exchange['body']}"
    if answer.status != exchange["status"]:
        return [f"{where}: status {answer.status}, not {exchange['status']}: {answer.body[:200]}"]
    theirs, ours = exchange["json"], answer.json
    if theirs is None:
        return [] if not ours else [f"{where}: {ours}"]
    if "errors" in theirs:
        theirs = [text.partition(": strconv")[0] for text in theirs["errors"]]
        ours = [text.partition(": X-Vault-Wrap-TTL is")[0] for text in ours["errors"]]
        return [] if ours == theirs else [f"{where}: {ours}, not {theirs}"]
    found = []
    for name in ("lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"):
        left, right = mapped(replay, theirs[name]), ours[name]
        if name == "data" and exchange["path"] in DIFFERENT:
            left = DIFFERENT[exchange["path"]]
        if name == "warnings" and exchange["status"] == 202:
            left, right = len(left), len(right)  # where the outcome is written down is said otherwise
        if isinstance(left, dict) and name != "data":
            right = {key: right.get(key) for key in left}
        found += [f"{where}: {name} is {right!r}, not {left!r}"] if plain(left) != plain(right) else []
    if bool(theirs["request_id"]) != bool(ours["request_id"]):
        found.append(f"{where}: request_id is {ours['request_id']!r}")
    return found


def mapped(replay, value):
    """Their value with our ids in it."""
    text = json.dumps(value)
    for theirs, ours in replay.ours.items():
        text = text.replace(theirs, ours).replace(theirs.rpartition("/")[2], ours.rpartition("/")[2])
    return json.loads(text)


def plain(value):
    if isinstance(value, dict):
        return {name: type(inner) if name in LOOSE else plain(inner) for name, inner in value.items()}
    return sorted(value) if isinstance(value, list) else value


class Database(Lab):
    """Stands in for the database engine of the recording: roles ``r`` and ``t``."""

    async def make(self, context, call):
        self.ttl, self.max_ttl = {"r": (10, 25), "t": (3600, 86_400)}[call.params["name"]]
        reply = await super().make(context, call)
        return type(reply)({**reply.data, "password": "p" * 20}, lease=reply.lease)


def test_recorded_requests_about_leases_get_the_answers_of_a_real_vault():
    clock = FrozenClock()

    async def scenario(vault):
        database = Database("database/").mount(vault)
        Lab("pki/", pattern="issue/{name}", ttl=3600, renewable=False).mount(vault)
        replay, found, count = Replay(Client(vault.node)), [], 0
        for line in (FOLDER / "leases.jsonl").read_text().splitlines():
            exchange = json.loads(line)
            clock.advance(10 if exchange["note"] == "expired" else 0.5)
            await vault.node.sweep()
            answer = await replay.send(exchange)
            count += 1
            if exchange["path"] == "pki/issue/w":
                assert answer.json["lease_duration"] == 3600
                continue  # the certificate is another matter
            found += differences(replay, exchange, answer)
            if exchange["note"] == "lease longer than its token":
                clock.advance(5)
                await vault.node.sweep()
                assert not database.alive
        assert not found, "\n".join(found)
        assert count == 35
        assert not database.alive

    play(scenario, clock=clock)


def test_recorded_requests_about_wrapping_get_the_answers_of_a_real_vault():
    async def scenario(vault):
        Database("database/").mount(vault)
        ask = Client(vault.node)
        await ask("POST", "sys/mounts/kv1", {"type": "kv", "options": {"version": "1"}})
        await ask("POST", "kv1/w/x", {"need": "1"})
        await ask("PUT", "sys/policies/acl/app", {"policy": 'path "a" { capabilities = ["read"] }'})
        replay, found, count = Replay(ask), [], 0
        for line in (FOLDER / "wrapping.jsonl").read_text().splitlines():
            exchange = json.loads(line)
            answer = await replay.send(exchange)
            found += differences(replay, exchange, answer)
            count += 1
        assert not found, "\n".join(found)
        assert count == 15

    play(scenario)
