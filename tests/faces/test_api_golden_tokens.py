"""Tokens, policies and capabilities against what a real Vault (1.8) answered to the same requests, in order."""

import json
from pathlib import Path

from faces.api_client import play

EXCHANGES = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "tokens.jsonl"
ROOT = "s.3ZQQSVHIFoCe3QShWN9farUk"
# What is theirs alone: tokens, accessors, times.
RANDOM = {"request_id", "client_token", "accessor", "id", "creation_time", "expire_time", "issue_time", "keys"}
RANDOM |= {"last_renewal", "last_renewal_time"}
# What we say besides. 1.9 and later: identity_policies to token_num_uses. Ours: scope, run and services of a token.
MORE = {"num_uses", "mfa_requirement", "issue_time", "renewable", "last_renewal", "last_renewal_time"}
MORE |= {"allowed_policies_glob", "disallowed_policies_glob", "token_bound_cidrs", "token_no_default_policy"}
MORE |= {"token_num_uses", "scope", "mount_type"}
# Method, path and what tells it from others -> why it is answered otherwise.
DIFFERENT = {
    "GET sys/policies/acl/default": "the text is ours; it gives what theirs gives, and a little of our own",
    "GET sys/policy/default": "the same",
    "PUT sys/policies/acl/bad": "the text goes on with the number of the line",
    "POST auth/token/lookup-accessor nope": "without the punctuation of Go's lists of errors",
    "POST auth/token/create my-fixed-id": "the warning says what is weak here; no SHA-1 is involved",
}
SAYS = {"GET auth/token/lookup-self": {"path", "display_name"}}  # of the root token, which init made


def name_of(exchange):
    name = f"{exchange['method']} {exchange['path']}"
    body = exchange["body"] or {}
    mark = body.get("id") or (body.get("accessor") if body.get("accessor") == "nope" else None)
    return f"{name} {mark}" if mark else name


def differences(theirs, ours, where, skipped=frozenset()):
    """What differs in two answers, beyond what is random."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        missing, extra = set(theirs) - set(ours), set(ours) - set(theirs) - MORE
        found = [f"{where} lacks {missing}"] if missing else []
        found += [f"{where} has {extra}"] if extra else []
        for name in sorted(theirs.keys() & ours.keys() - RANDOM - skipped):
            found += differences(theirs[name], ours[name], f"{where}.{name}", skipped)
        return found
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [each for pair in zip(theirs, ours, strict=True) for each in differences(*pair, where)]
    return [] if theirs == ours else [f"{where} is {ours!r}, not {theirs!r}"]


class Replay:
    """Sends what was recorded, with our tokens and accessors in place of theirs."""

    def __init__(self, ask):
        self.ask = ask
        self.ours = {ROOT: "root"}
        self.bob = self.latest = "none"

    async def send(self, exchange):
        text = json.dumps(exchange["body"])
        for theirs, ours in self.ours.items():
            text = text.replace(theirs, ours)
        bearer = [(b"authorization", b"Bearer root")] if exchange["note"] == "bearer" else []
        token = {"root": "root", "none": None}.get(exchange["auth"], self.bob)
        if exchange["note"] == "num_uses 2":
            token = self.latest
        answer = await self.ask(exchange["method"], exchange["path"], json.loads(text), token=token, headers=bearer)
        theirs, ours = (exchange["json"] or {}).get("auth"), answer.json.get("auth")
        if theirs and ours and "create" in exchange["path"]:
            self.ours |= {theirs["client_token"]: ours["client_token"], theirs["accessor"] or "-": ours["accessor"]}
            self.latest = ours["client_token"]
            if exchange["body"].get("display_name") == "bob":
                self.bob = self.latest
        return answer


def test_every_recorded_exchange_is_answered_alike():
    async def scenario(ask, _vault):
        replay, found, played, otherwise = Replay(ask), [], 0, set()
        for line in EXCHANGES.read_text().splitlines():
            exchange = json.loads(line)
            answer = await replay.send(exchange)
            where, theirs = name_of(exchange), exchange["json"] or {}
            skipped = SAYS.get(where, set()) if exchange["auth"] != "other" else set()
            wrong = (
                [f"{where}: {answer.status}, not {exchange['status']}: {answer.body[:200]}"]
                if answer.status != exchange["status"]
                else differences(theirs, answer.json, where, skipped)
            )
            if where in DIFFERENT:
                otherwise |= {where} if wrong else set()
            else:
                found += wrong
            played += 1
        assert not found, "\n".join(found)
        assert otherwise == set(DIFFERENT)  # none is listed for nothing
        assert played == 61

    play(scenario)
