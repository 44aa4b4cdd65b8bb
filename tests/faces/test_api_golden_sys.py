"""The rest of ``sys/`` against what a real Vault (1.8) answered to the same requests."""

import json
from pathlib import Path

from faces.api_client import play

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "sys.jsonl"

# Field of an answer whose content is not the same twice: how it is compared instead.
VARYING = dict.fromkeys(("random_bytes", "password", "hash"), len)
VARYING |= dict.fromkeys(("timestamp", "install_time", "version", "cluster_name", "cluster_id"), type)
VARYING |= dict.fromkeys(("cpu", "cpu_times", "disk", "host", "memory", "encryptions", "server_time_utc"), type)

# What we answer otherwise, and why.
DIFFERENT = {
    "sys/metrics?format=prometheus": 200,  # theirs had to be switched on; ours costs nothing
}


def plain(name, value):
    return VARYING[name](value) if name in VARYING else value


def differences(exchange, answer):
    where = f"{exchange['method']} {exchange['path']} {exchange['body']}"
    if exchange["path"] in DIFFERENT:
        return [] if answer.status == DIFFERENT[exchange["path"]] else [f"{where}: status {answer.status}"]
    if exchange["json"] is None and not answer.body:
        return [] if answer.status == exchange["status"] else [f"{where}: status {answer.status}"]
    if answer.status != exchange["status"]:
        return [f"{where}: status {answer.status}: {answer.body[:200]}"]
    theirs, ours = exchange["json"] or {}, answer.json
    if "errors" in theirs:
        return [] if ours["errors"] == theirs["errors"] else [f"{where}: {ours['errors']}"]
    if theirs.keys() - ours.keys():
        return [f"{where}: without {sorted(theirs.keys() - ours.keys())}"]
    theirs, ours = (found.get("data", found) or {} for found in (theirs, ours))
    return [
        f"{where}: {name} is {ours.get(name)!r}, not {theirs[name]!r}"
        for name in theirs
        if name not in ours or plain(name, ours[name]) != plain(name, theirs[name])
    ]


def test_recorded_requests_get_the_answers_of_a_real_vault(tmp_path):
    async def scenario(ask, _vault):
        await ask("POST", "sys/mounts/kv1", {"type": "kv", "options": {"version": "1"}})
        found, count = [], 0
        for line in EXCHANGES.read_text().replace("/nonexistent", str(tmp_path)).splitlines():
            exchange = json.loads(line)
            found += differences(exchange, await ask(exchange["method"], exchange["path"], exchange["body"]))
            count += 1
        assert not found, "\n".join(found)
        assert count == len(EXCHANGES.read_text().splitlines()) > 4

    play(scenario)
