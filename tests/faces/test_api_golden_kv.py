"""KV of both versions against what a real Vault (1.8) answered to the same requests: status, values and error texts."""

import json
import re
from pathlib import Path

from engines.mounting import mount
from faces.api_client import play

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "kv.jsonl"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z")

# Request -> the status that we answer on purpose, and why it is not that of the recorded server.
DIFFERENT = {
    "PATCH kv2/data/app/x": 415,  # Vault patches since 1.9, with a content type of its own
    "GET kv2/subkeys/app/x": 200,  # Vault has this route since 1.10
}
# Ours besides: what a team wants to know of a secret, and what Vault has since 1.9.
MORE = {"type", "owner", "tags", "expires_at", "rotate_every", "rotated_at", "fields", "custom_metadata"}


def timeless(value):
    """The same with each time as one word, and without the id of the request and what only we have."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "request_id" and k not in MORE}
    if isinstance(value, str):
        return TIME.sub("TIME", value)
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_recorded_requests_get_the_answers_of_a_real_vault():
    async def scenario(ask, vault):
        await mount(vault, "kv1", "kv", version="1")
        await mount(vault, "kv2", "kv", version="2")
        compared = 0
        for line in EXCHANGES.read_text().splitlines():
            theirs = json.loads(line)
            request = f"{theirs['method']} {theirs['path']}"
            ours = await ask(theirs["method"], theirs["path"], theirs["body"])
            about = f"{theirs['note']} {request} {theirs['body']}: {ours.body}"
            assert ours.status == DIFFERENT.get(request, theirs["status"]), about
            if request not in DIFFERENT:
                assert timeless(ours.json) == timeless(theirs["json"] or {}), about
                compared += 1
        assert compared > 45

    play(scenario)
