"""One attempt: the token that it is made with, and what its answer means."""

import asyncio
import json
import threading

import pytest

from keyhole.client.core import Result
from keyhole.client.travel import Answered
from keyhole.core import errors
from keyhole.core.identity import RunContext
from keyhole.faces.workflow.acting import Actor, ToolAnswer, render
from keyhole.faces.workflow.lint import lint

URL = "https://a.example/x"
CONTEXT = RunContext(workflow="w", run="r1", on_behalf_of="anna")


def step(**fields):
    found = lint(json.dumps({"workflow": "w", "steps": [{"id": "a", **fields}]}).encode())
    assert found.problems == ()
    [made] = found.workflow.steps()
    return made


class Vault:
    """Whoever runs the workflow, and the holder of each token."""

    def __init__(self, answer=None):
        self.answer = answer
        self.asked = []
        self.ended = threading.Event()

    def ask(self, operation, path, data=None):
        self.asked.append((operation, path, dict(data or {})))
        if path == "auth/token/revoke-accessor":
            self.ended.set()
        records = [{"phase": "intent", "accessor": "acc"}, {"phase": "intent", "accessor": "other"}]
        return Result({"token": "t", "accessor": "acc", "records": records})

    def call(self, trip):
        if self.answer is None:
            assert self.ended.wait(30)
            raise errors.Unauthenticated("revoked")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        pass


class Tools:
    def __init__(self, answer):
        self.answer = answer

    async def use(self, party, server, tool, arguments):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def attempt(made, vault, tools=None):
    async def main():
        actor = Actor(vault, lambda _token: vault, "coder", CONTEXT, tools)
        grip = await actor.open(made)
        try:
            return await actor.do(grip, render(made, {}, "kh-1"))
        finally:
            await actor.close(grip)

    return asyncio.run(main())


def test_an_attempt_has_a_token_of_its_own_that_ends_with_it():
    vault = Vault(Answered(200, (), b""))
    attempt(step(call={"url": URL, "service": "pay"}, timeout=30), vault)
    (_, path, data), *_, last = vault.asked
    assert path == "agents/coder/token"
    told = {"workflow": "w", "run": "r1", "step": "a", "on_behalf_of": "anna"}
    assert data == {"ttl": "90s", "scope": "proxy", "services": ["pay"], **told}
    assert last == ("update", "auth/token/revoke-accessor", {"accessor": "acc"})
    vault = Vault()
    attempt(step(tool="mail/send"), vault, Tools(ToolAnswer(failed=False, body={"x": 1})))
    assert vault.asked[0][2]["tool"] == "mail/send"


JSON = (("Content-Type", "application/json"), ("Set-Cookie", "s=1"), ("Retry-After", "7"))


@pytest.mark.parametrize(
    ("answer", "expect", "told"),
    [
        (Answered(200, JSON, b'{"a": 1}'), [], ("ok", "", 200, False)),
        (Answered(302, JSON, b""), [], ("ok", "", 302, False)),
        (Answered(200, JSON, b"{}"), [201], ("failed", "failed", 200, False)),
        (Answered(404, JSON, b"{}"), [200, 404], ("ok", "", 404, False)),
        (Answered(404, JSON, b"{}"), [], ("failed", "failed", 404, False)),
        (Answered(408, JSON, b""), [], ("failed", "failed", 408, True)),
        (Answered(502, JSON, b"x" * 100_000), [], ("failed", "failed", 502, True)),
        (Answered(200, JSON, b'"' + b"x" * 300_000 + b'"'), [], ("failed", "body_too_large", 200, True)),
        (errors.PolicyDenied("no"), [], ("failed", "policy_denied", 0, False)),
        (errors.NoService("no"), [], ("failed", "no_service", 0, False)),
        (errors.UpstreamTimeout("late"), [], ("failed", "upstream_timeout", 0, True)),
        (errors.UpstreamUnreachable("cut"), [], ("failed", "upstream_unreachable", 0, True)),
        (errors.Unreachable("cut"), [], ("failed", "unreachable", 0, True)),
        (errors.ApprovalRequired("ask"), [], ("waiting", "approval_required", 0, False)),
    ],
)
def test_what_an_answer_means(answer, expect, told):
    call = {"url": URL, "method": "POST", **({"expect": expect} if expect else {})}
    outcome = attempt(step(call=call), Vault(answer))
    assert (outcome.result, outcome.error, outcome.status, outcome.doubt) == told
    assert "set-cookie" not in outcome.headers
    if outcome.status in {404, 502} and outcome.result == "failed":
        assert outcome.after == 7


def test_a_step_takes_no_longer_than_it_may_and_what_is_under_way_ends():
    vault = Vault()
    outcome = attempt(step(call={"url": URL, "method": "POST"}, timeout=0.05), vault)
    assert (outcome.result, outcome.error, outcome.doubt) == ("failed", "upstream_timeout", True)
    assert vault.ended.is_set()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ToolAnswer(failed=False, body={"n": 1, "password": "open sesame"}), ("ok", "", False)),
        (ToolAnswer(failed=True, body="no"), ("failed", "failed", True)),
        (ToolAnswer(failed=True, body="x" * 300_000), ("failed", "failed", True)),
        (errors.PolicyDenied("no"), ("failed", "policy_denied", False)),
        (errors.RateLimited("slow", retry_after=3), ("failed", "rate_limited", False)),
        (errors.UpstreamUnreachable("gone"), ("failed", "upstream_unreachable", True)),
    ],
)
def test_what_a_tool_gives(answer, told):
    outcome = attempt(step(tool="mail/send"), Vault(), Tools(answer))
    assert (outcome.result, outcome.error, outcome.doubt) == told
    assert "sesame" not in json.dumps(outcome.as_data())
    assert outcome.after == (3 if outcome.error == "rate_limited" else 0)


def test_the_token_of_what_was_cut_off_is_ended_before_the_journal_is_asked():
    vault = Vault()
    made = step(call={"url": URL})
    actor = Actor(vault, lambda _token: vault, "coder", CONTEXT, None)
    assert asyncio.run(actor.recorded(made, "acc")) == [{"phase": "intent", "accessor": "acc"}]
    paths = [path for _, path, _ in vault.asked]
    assert paths.index("auth/token/revoke-accessor") < paths.index("sys/own/audit-log")


def test_the_journal_is_asked_for_the_attempt_and_not_for_what_others_say_of_themselves():
    vault = Vault()
    asyncio.run(Actor(vault, lambda _token: vault, "coder", CONTEXT, None).recorded(step(call={"url": URL}), "acc"))
    [asked] = [data for _, path, data in vault.asked if path == "sys/own/audit-log"]
    assert (asked["accessor"], asked["run"], asked["step"]) == ("acc", "r1", "a")
