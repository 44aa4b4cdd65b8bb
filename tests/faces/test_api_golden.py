"""The API against what a real Vault (1.8) answered to the same requests: status, fields and error texts."""

import json
from pathlib import Path

from faces.api_client import play

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "vault.jsonl"

# Note or path of an exchange -> what a Vault of the version that we report answers instead.
NEWER = {
    "no token": (403, ["permission denied"]),  # 1.10 and later
    "auth/token/lookup-accessor nope": (400, ["invalid accessor"]),  # without the punctuation of Go's error lists
    "PATCH kv2/data/app/x": (415, None),  # 1.9 and later patch, with a content type of its own
    "cubbyhole/a empty": (400, ["missing data fields"]),  # the caller's mistake
    "auth/approle/login used up": (400, ["invalid role or secret id"]),  # newer ones do not say which
    "auth/approle/login unknown": (400, ["invalid role or secret id"]),
}


def key_of(exchange):
    if exchange["note"] in NEWER:
        return exchange["note"]
    if exchange["body"] == {"accessor": "nope"}:
        return "auth/token/lookup-accessor nope"
    if exchange["path"] == "auth/approle/login" and exchange["status"] == 400 and exchange["body"].get("secret_id"):
        return f"auth/approle/login {'unknown' if exchange['body']['role_id'] == 'bad' else 'used up'}"
    if exchange["method"] == "PATCH":
        return f"PATCH {exchange['path']}"
    if exchange["path"] == "cubbyhole/a" and exchange["body"] == {}:
        return "cubbyhole/a empty"
    return ""


class Replay:
    """Sends what was recorded, with our tokens in place of theirs."""

    def __init__(self, ask):
        self.ask = ask
        self.ours = {"s.3ZQQSVHIFoCe3QShWN9farUk": "root"}
        self.bob = self.latest = "none"

    async def send(self, exchange):
        body = exchange["body"]
        text = json.dumps(body).replace("kv2/", "secret/")
        for theirs, ours in self.ours.items():
            text = text.replace(theirs, ours)
        token, headers = self.credential(exchange)
        answer = await self.ask(
            exchange["method"],
            exchange["path"].replace("kv2/", "secret/"),
            None if body is None else json.loads(text),
            token=token,
            headers=headers,
        )
        self.learn(exchange, answer)
        return answer

    def credential(self, exchange):
        if exchange["note"] == "bearer":
            return None, [(b"authorization", b"Bearer root")]
        if exchange["auth"] == "none":
            return None, []
        if exchange["note"] == "bad token":
            return "s.unknown", []
        if exchange["auth"] == "other":
            return (self.latest if exchange["note"] == "num_uses 2" else self.bob), []
        return "root", []

    def learn(self, exchange, answer):
        theirs, ours = (exchange["json"] or {}).get("data") or {}, (answer.json or {}).get("data") or {}
        for name in ("role_id", "secret_id", "secret_id_accessor"):
            if name in theirs and name in ours:
                self.ours[theirs[name]] = ours[name]
        theirs = (exchange["json"] or {}).get("auth")
        if theirs and answer.status == 200 and theirs["client_token"]:
            ours = answer.json["auth"]
            if "create" in exchange["path"]:
                self.ours[theirs["client_token"]] = ours["client_token"]
                self.ours[theirs["accessor"]] = ours["accessor"]
                self.latest = ours["client_token"]
                if (exchange["body"] or {}).get("display_name") == "bob":
                    self.bob = self.latest


def differences(exchange, answer):
    """What a client would notice."""
    status, errors = NEWER.get(key_of(exchange), (exchange["status"], (exchange["json"] or {}).get("errors")))
    where = f"{exchange['note']} {exchange['method']} {exchange['path']} {exchange['body']}"
    if answer.status != status:
        return [f"{where}: status {answer.status}, not {status}: {answer.body[:200]}"]
    if status == 204 or key_of(exchange):
        return [] if errors is None or answer.json["errors"] == errors else [f"{where}: {answer.json}"]
    found = []
    if errors is not None and [text.partition(" on line ")[0] for text in answer.json["errors"]] != errors:
        found.append(f"{where}: {answer.json['errors']}, not {errors}")
    theirs, ours = exchange["json"] or {}, answer.json
    for name in ("", "data", "auth"):
        left, right = (theirs, ours) if not name else (theirs.get(name), ours.get(name))
        if isinstance(left, dict) and "keys" not in left:
            missing = {key for key in left if not key.startswith("cluster")} - set(right or {})
            missing = {key.replace("kv2/", "secret/") for key in missing} - set(right or {})
            found += [f"{where}: {name or 'the answer'} has no {sorted(missing)}"] if missing else []
    return found


def values(exchange, answer):
    """Values that do not depend on the time or on random names."""
    if exchange["status"] != 200 or not isinstance((exchange["json"] or {}).get("data"), dict):
        return []
    theirs, ours = exchange["json"]["data"], answer.json["data"]
    fixed = ("version", "destroyed", "data", "current_version", "oldest_version", "max_versions", "cas_required")
    fixed += ("delete_version_after", "num_uses", "creation_ttl", "explicit_max_ttl", "orphan", "policies", "type")
    fixed += ("renewable", "meta", "period", "capabilities", "bind_secret_id", "secret_id_num_uses", "secret_id_ttl")
    fixed += ("token_policies", "token_ttl", "token_max_ttl", "token_type", "cidr_list")
    if "ui/mounts" in exchange["path"] or exchange["path"].startswith("sys/policy"):
        return []
    return [
        f"{exchange['path']} {exchange['body']}: {name} is {ours.get(name)!r}, not {theirs[name]!r}"
        for name in fixed
        if name in theirs and theirs[name] != ours.get(name)
    ]


def test_recorded_requests_get_the_answers_of_a_real_vault():
    async def scenario(ask, _vault):
        replay = Replay(ask)
        found, count = [], 0
        for line in EXCHANGES.read_text().splitlines():
            exchange = json.loads(line)
            answer = await replay.send(exchange)
            wrong = differences(exchange, answer)
            found += wrong or (values(exchange, answer) if exchange["status"] == 200 else [])
            count += 1
        assert not found, "\n".join(found)
        assert count > 100

    play(scenario, enabled=["sys/auth/approle", "sys/auth/userpass"])
