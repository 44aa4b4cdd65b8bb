"""Transit against what a real Vault (1.8) answered to the same requests."""

import json
from pathlib import Path

from faces.api_client import play

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "transit.jsonl"
# Vault's backup is a dump of its memory: ours is of another form, and as opaque. Times, random bytes and keys differ.
RANDOM = {"ciphertext", "signature", "hmac", "plaintext", "random_bytes", "backup", "keys", "batch_results"}


def status_of(exchange):
    """A batch of which some items fail is 400 from Vault 1.12 on, with the results beside."""
    results = ((exchange["json"] or {}).get("data") or {}).get("batch_results", ())
    return 400 if any("error" in result for result in results) else exchange["status"]


def shape(value):
    """What does not depend on keys, nonces or the time."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    if isinstance(value, str):
        return value[: len("vault:vN:")] if value.startswith("vault:") else len(value)
    return type(value)


def differences(exchange, answer):
    where = f"{exchange['method']} {exchange['path']} {exchange['body']}"
    if answer.status != status_of(exchange):
        return [f"{where}: status {answer.status}: {answer.body[:200]}"]
    theirs = exchange["json"] or {}
    if "errors" in theirs:
        return [] if answer.json["errors"] == theirs["errors"] else [f"{where}: {answer.json['errors']}"]
    data = theirs.get("data") or {}
    ours = {name: plain(name, answer.json["data"].get(name)) for name in data}
    return [f"{where}: {name} is {ours[name]!r}" for name in data if ours[name] != plain(name, data[name])]


def plain(name, value):
    """A field as it can be compared."""
    if name == "keys" and isinstance(value, dict):
        return sorted(value)
    if name == "backup":
        return isinstance(value, str)
    return shape(value) if name in RANDOM - {"keys"} else value


def test_recorded_requests_get_the_answers_of_a_real_vault():
    async def scenario(ask, _vault):
        ours, found, count = {}, [], 0
        for line in EXCHANGES.read_text().splitlines():
            exchange = json.loads(line)
            text = json.dumps(exchange["body"])
            for theirs, known in ours.items():
                text = text.replace(theirs, known)
            answer = await ask(exchange["method"], exchange["path"], json.loads(text))
            found += differences(exchange, answer)
            for name in ("ciphertext", "signature"):
                theirs = ((exchange["json"] or {}).get("data") or {}).get(name)
                if theirs and answer.status == 200:
                    ours[theirs] = answer.json["data"][name]
            count += 1
        assert not found, "\n".join(found)
        assert count == 42

    play(scenario, enabled=["sys/mounts/transit"])
