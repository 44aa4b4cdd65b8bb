"""Mounts against what a real Vault (1.8) answered to the same requests, in order."""

import json
from pathlib import Path

from faces.api_client import play
from keyhole import auth, engines

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "mounts.jsonl"
TYPES = {*auth.MEMBERS, *engines.MEMBERS, "kv-v2"}

# Request -> the status that a Vault of the version that we report gives instead.
NEWER = {
    ("GET", "sys/mounts/kv2"): 200,  # 1.9 and later read one mount
    ("POST", "sys/remount"): 200,  # 1.10 and later answer the id of the move
}
# What the recorded server alone knows: random names, its own plugins, its texts about what every server has.
THEIRS = {"accessor", "uuid", "request_id", "detailed"}
FIXED = {"sys/", "identity/", "cubbyhole/", "token/"}
NOT_OURS = {"passthrough_request_headers"}  # of sys/: every client's Accept header is passed over


def differences(theirs, ours, where):
    """What a client would miss or read differently; more than was recorded is no difference."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = []
        for name in theirs.keys() - THEIRS - NOT_OURS:
            if name not in ours:
                found.append(f"{where} lacks {name}")
            elif name in FIXED:
                found += differences({**theirs[name], "description": ours[name]["description"]}, ours[name], name)
            else:
                found += differences(theirs[name], ours[name], f"{where}.{name}")
        return found
    return [] if theirs == ours else [f"{where} is {ours!r}, not {theirs!r}"]


def without(answer, missing):
    """An answer without the mounts whose types are not on our shelves."""
    if not isinstance(answer, dict):
        return answer
    return {name: without(inner, missing) for name, inner in answer.items() if name.rstrip("/") not in missing}


def test_every_recorded_exchange_about_mounts_is_answered_alike():
    async def scenario(ask, _vault):
        found, played, missing = [], 0, set()
        for line in EXCHANGES.read_text().splitlines():
            exchange = json.loads(line)
            method, path, body = (exchange[name] for name in ("method", "path", "body"))
            answer, where = await ask(method, path, body), f"{method} {path} {body}"
            if exchange["status"] == 204 and body and body.get("type", "kv") not in TYPES:
                missing.add(path.rpartition("/")[2])
                assert answer.json["errors"] == [f"plugin not found in the catalog: {body['type']}"]
                continue
            played += 1
            status = NEWER.get((method, path), exchange["status"])
            if answer.status != status:
                found.append(f"{where}: {answer.status}, not {status}: {answer.body[:200]}")
            elif status == exchange["status"] and path != "sys/plugins/catalog":  # each server has shelves of its own
                found += differences(without(exchange["json"] or {}, missing), answer.json, where)
        assert not found, "\n".join(found)
        assert played >= 29

    play(scenario)


def test_the_catalog_has_the_fields_of_a_real_one():
    async def scenario(ask, _vault):
        recorded = [json.loads(line) for line in EXCHANGES.read_text().splitlines()]
        theirs = next(each["json"]["data"] for each in recorded if each["path"] == "sys/plugins/catalog")
        ours = (await ask("GET", "sys/plugins/catalog")).json["data"]
        assert theirs.keys() <= ours.keys()
        assert {"kv", "transit"} <= set(ours["secret"]) & set(theirs["secret"])

    play(scenario)
