"""Identities against what a real Vault (1.8) answered to the same requests, in order."""

import json
from pathlib import Path

from faces.api_client import play
from vault.identities import accessor_of

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "identity.jsonl"
# What is theirs alone: ids, times, where their logins were.
RANDOM = {"id", "canonical_id", "creation_time", "last_update_time", "keys", "key_info", "request_id", "mount_accessor"}
RANDOM |= {"direct_group_ids", "group_ids", "member_entity_ids", "mount_path"}
ALSO_OURS = {"custom_metadata", "local"}  # 1.9 and later


def differences(theirs, ours, where):
    """What differs in two answers, beyond ids and times."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        missing, extra = set(theirs) - set(ours), set(ours) - set(theirs) - ALSO_OURS
        found = [f"{where} lacks {missing}"] if missing else []
        found += [f"{where} has {extra}"] if extra else []
        for name in sorted(theirs.keys() & ours.keys() - RANDOM):
            found += differences(theirs[name], ours[name], f"{where}.{name}")
        return found
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [each for pair in zip(theirs, ours, strict=True) for each in differences(*pair, where)]
    return [] if theirs == ours else [f"{where} is {ours!r}, not {theirs!r}"]


def learn(theirs, ours, known):
    """Their ids, and what stands for them here."""
    for name in ("id", "canonical_id"):
        if name in (theirs or {}) and name in (ours or {}):
            known[theirs[name]] = ours[name]


def test_every_recorded_exchange_is_answered_alike():
    async def scenario(ask, vault):
        await ask("POST", "sys/auth/approle", {"type": "approle"})
        known = {"auth_approle_9db8eb2a": await accessor_of(vault)}
        found, played = [], 0
        for line in EXCHANGES.read_text().splitlines():
            exchange = json.loads(line)
            text = json.dumps([exchange["path"], exchange["body"]])
            for theirs, ours in known.items():
                text = text.replace(theirs, ours)
            path, body = json.loads(text)
            answer = await ask(exchange["method"], path, body)
            where = f"{exchange['method']} {exchange['path']}"
            if answer.status != exchange["status"]:
                found.append(f"{where}: {answer.status}, not {exchange['status']}: {answer.body[:200]}")
                continue
            theirs = exchange["json"] or {}
            learn(theirs.get("data"), answer.json.get("data"), known)
            found += differences(theirs, answer.json, where)
            played += 1
        assert not found, "\n".join(found)
        assert played == 11

    play(scenario)
