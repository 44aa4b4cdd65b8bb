"""The database engine against what a real Vault (1.8) answered over a PostgreSQL, with the logins that it saw work."""

import json
from pathlib import Path

import database_server
import postgres_server
from faces.api_client import Client
from faces.test_api_golden_leases import Replay, mapped, plain
from keyhole.net.ask import Asker
from keyhole.testing import FrozenClock
from vault.world import play

RECORDED = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "database.jsonl"
THEIR_URL = "postgresql://{{username}}:{{password}}@127.0.0.1:57131/postgres?sslmode=disable"
LOOSE = {"last_vault_rotation"}
# After these the recording waits until what was made has ended.
WAITS = {"expires in 10s": 11, "lease longer than its token": 6}


class Session(Replay):
    """Replays requests and remembers who was given which password."""

    def __init__(self, ask):
        super().__init__(ask)
        self.users = {}
        self.latest_user = ""

    async def exchange(self, recorded):
        text = json.dumps(recorded["body"]).replace(THEIR_URL, database_server.started())
        text = text.replace('"rootpw"', json.dumps(database_server.PASSWORD))
        theirs = (recorded["json"] or {}).get("data") or {}
        auth = "latest" if str(theirs.get("username", "")).startswith("v-token-") else "root"
        auth = "wrap" if recorded["path"] == "sys/wrapping/unwrap" else auth
        headers = {"X-Vault-Wrap-TTL": "60s"} if (recorded["json"] or {}).get("wrap_info") else {}
        answer = await self.send({**recorded, "body": json.loads(text), "auth": auth, "headers": headers})
        if "password" in theirs and answer.status == 200:
            self.latest_user = theirs["username"]
            self.users.setdefault(self.latest_user, []).append(answer.json["data"])
        return answer

    def may_log_in(self, recorded):
        if recorded["ok"]:
            given = self.users[self.latest_user][-1]
            return database_server.may_log_in(given["username"], given["password"])
        name = recorded["err"].rpartition('user "')[2].rstrip('"')
        if name == database_server.ADMIN:
            return database_server.may_log_in(name, database_server.PASSWORD)
        given = self.users[name][0]
        return database_server.may_log_in(given["username"], given["password"])


def differences(session, recorded, answer):
    where = f"{recorded['note']} {recorded['method']} {recorded['path']}"
    theirs, path = recorded["json"], recorded["path"]
    if path == "database/config/pg" and recorded["method"] == "POST":
        return [] if answer.status == 204 else [f"{where}: {answer.status}"]  # so answer newer versions of Vault
    if answer.status != recorded["status"]:
        return [f"{where}: status {answer.status}, not {recorded['status']}: {answer.body[:200]}"]
    if theirs is None or "errors" in theirs:
        return [] if answer.json.get("errors") == (theirs or {}).get("errors") else [f"{where}: {answer.json}"]
    found = []
    for name in ("lease_id", "renewable", "lease_duration", "data", "warnings"):
        left, right = loose(mapped(session, theirs[name])), loose(answer.json[name])
        if isinstance(right, dict) and name == "data":
            right.pop("plugin_version", None)  # newer versions of Vault have it
            if "connection_details" in left:
                left["connection_details"]["connection_url"] = database_server.started()
        found += [f"{where}: {name} is {right!r}, not {left!r}"] if plain(left) != plain(right) else []
    return found


def loose(value):
    return {key: None if key in LOOSE else item for key, item in value.items()} if isinstance(value, dict) else value


def test_recorded_requests_about_databases_get_the_answers_of_a_real_vault():
    clock = FrozenClock()

    async def scenario(vault):
        vault.vault.net = Asker()
        session, found, logins, wait = Session(Client(vault.node)), [], 0, 0
        for line in RECORDED.read_text().splitlines():
            recorded = json.loads(line)
            if "ok" in recorded:
                if not recorded["ok"]:
                    clock.advance(wait)
                    await vault.node.sweep()
                assert session.may_log_in(recorded) is recorded["ok"], (session.latest_user, recorded)
                logins += 1
                continue
            clock.advance(0.5 if recorded["path"].startswith("sys/leases") else 0)
            wait = WAITS.get(recorded["note"], 0)
            found += differences(session, recorded, await session.exchange(recorded))
        assert not found, "\n".join(found)
        assert logins == 14
        await vault.node.sweep()

    with postgres_server.superuser() as admin:
        admin.execute("DROP ROLE IF EXISTS app")
        admin.execute("CREATE ROLE app LOGIN PASSWORD 'a first password'")
    database_server.reset_root()
    before = database_server.users()
    play(scenario, clock=clock)
    assert database_server.users() == before
