"""What the door asks of a use of a tool: conditions on its arguments, rates, and a person's approval."""

import asyncio
import contextlib

import pytest

from keyhole.core.errors import ApprovalRequired, InvalidRequest, KeyholeError, PolicyDenied, RateLimited
from keyhole.testing import FrozenClock, open_vault
from keyhole.vault.tool_rules import repetitions

PIN, OTHER = "a" * 64, "b" * 64
SERVER = {"url": "https://tools.test/mcp", "headers": {"Authorization": "Bearer {git/token}"}}


class Scene:
    """A server `git` with approved tools, and the agent `coder` who may use them."""

    def __init__(self, opened, clock):
        self.opened = opened
        self.clock = clock
        self.token = ""

    async def bind(self, rules, **more):
        await self.opened.ask("update", "tools/servers/git", {**SERVER, "rules": rules, **more})

    async def begin(self, arguments=None, tool="push", digest=PIN, token=None):
        body = {"server": "git", "tool": tool, "digest": digest, "arguments": arguments or {}}
        return (await self.opened.ask("update", "tools/own/begin", body, token=token or self.token)).data

    async def refused(self, *asked, **how):
        with pytest.raises(KeyholeError) as caught:
            await self.begin(*asked, **how)
        return caught.value

    async def agent(self, name):
        await self.opened.ask("update", f"agents/{name}", {})
        await self.opened.ask(
            "update", f"sys/policies/acl/agent/{name}", {"policy": 'path "tools/git/*" { capabilities = ["use"] }'}
        )
        return (await self.opened.ask("update", f"agents/{name}/token", {})).data["token"]

    async def approve(self, request, **how):
        return (await self.opened.ask("update", f"approvals/requests/{request}/approve", how)).data

    async def records(self):
        await self.opened.vault.journal.drain()
        return (await self.opened.get("sys/audit-log"))["records"]


def play(scenario):
    async def main():
        clock = FrozenClock()
        async with open_vault(clock=clock) as opened:
            scene = Scene(opened, clock)
            await opened.ask("update", "secret/data/git/token", {"data": {"value": "tok_0123456789"}})
            await scene.bind({})
            await opened.ask("update", "tools/servers/git/pins", {"approve": {"push": PIN, "pull": PIN}})
            scene.token = await scene.agent("coder")
            await scenario(scene)

    asyncio.run(main())


RULES = {
    "pu*": {
        "conditions": [
            {"at": "/branch", "like": "agent/*"},
            {"at": "/lines", "max": 500, "optional": True},
            {"any": [{"at": "/force", "absent": True}, {"at": "/reviewed_by", "in": ["ann", "bob"]}]},
            {"not": {"at": "/files/*", "like": "*.pem"}},
        ]
    }
}


def test_conditions_on_arguments_hold_before_a_call_goes_out_and_each_refusal_is_recorded_without_a_value():
    good = {"branch": "agent/x", "files": ["a.py"]}
    fine = [{}, {"lines": 500}, {"lines": 12.5}, {"force": True, "reviewed_by": "ann"}, {"files": []}]
    bad = [
        {"branch": "main"},
        {"branch": None},
        {"Branch": "main"},  # a reader who does not look at case takes the last
        {"lines": 501},
        {"lines": "10"},
        {"force": False},
        {"force": True, "reviewed_by": "eve"},
        {"files": ["a.py", "key.pem"]},
        {"branch": "agent/\ud800"},
        {"lines": float("nan")},
        {"lines": 10**50},
    ]

    async def scenario(scene):
        await scene.bind(RULES)
        shown = (await scene.opened.get("tools/servers/git"))["rules"]["pu*"]["conditions"]
        assert shown[2:] == [
            {"any": [{"at": "/force", "absent": True}, {"at": "/reviewed_by", "in": ["ann", "bob"]}]},
            {"not": {"at": "/files/*", "like": "*.pem"}},
        ]
        for more in fine:
            await scene.begin({**good, **more})
        for more in bad:
            error = await scene.refused({**good, **more})
            assert error.code == "invalid_request"
            assert "main" not in f"{error}{error.hint}"
        refused = [r for r in await scene.records() if r["phase"] == "refused" and r["path"] == "tools/git/push"]
        assert [record["result"] for record in refused] == ["invalid_request"] * len(bad)
        assert not [record for record in refused if "eve" in str(record)]

    play(scenario)


BAD_RULES = [
    {"conditions": {"at": "/a", "max": 1}},
    {"conditions": [{"at": "a", "max": 1}]},
    {"conditions": [{"any": []}]},
    {"conditions": [{"any": [{"at": "/a", "max": 1}], "at": "/b"}]},
    {"conditions": [{"not": [{"at": "/a", "max": 1}]}]},
    {"conditions": [{"not": {"not": {"not": {"not": {"not": {"not": {"at": "/a", "max": 1}}}}}}}]},
    {"conditions": [{"any": [{"any": [{"at": "/a", "max": 1}] * 30}] * 30}]},
    {"limits": {"concurrent": 2}},
    {"approval": {"required": True, "for": [{"methods": ["POST"]}]}},
    {"schema": {"properties": {"a": {"pattern": "^(a+)+$"}}}},
    {"schema": {"patternProperties": {"(x|xx)*y": {}}}},
    {"hours": "at night"},
    {"unknown": 1},
]


def test_a_rule_that_cannot_be_judged_is_not_stored():
    async def scenario(scene):
        for rule in BAD_RULES:
            with pytest.raises(InvalidRequest) as caught:
                await scene.bind({"push": rule})
            assert caught.value.hint, rule

    play(scenario)


def test_patterns_are_tried_on_texts_of_bounded_length():
    assert repetitions(r"^[^@]+@[^@]+\.[a-z]+$") == 3
    for pattern in (r"(a?b)+", r"(a{1,40})+", r"((a|b)c)*", r"(?:\d+)*"):
        with pytest.raises(InvalidRequest):
            repetitions(pattern)

    async def scenario(scene):
        await scene.bind({"push": {"schema": {"properties": {"a": {"pattern": "^a*a*a*a*$"}}}}})
        await scene.begin({"a": "a" * 50})
        assert "too long" in (await scene.refused({"a": "a" * 5000 + "b"})).reason

    play(scenario)


def test_a_rate_is_for_each_tool_and_agent_and_a_count_outlives_the_binding():
    async def scenario(scene):
        other = await scene.agent("other")
        await scene.bind({"*": {"limits": {"rate": "2/m", "count": "3/9999w"}}})
        for _ in range(2):
            await scene.begin()
        error = await scene.refused()
        assert isinstance(error, RateLimited)
        assert 0 < error.retry_after <= 60
        await scene.begin(tool="pull")
        await scene.begin(token=other)
        scene.clock.advance(61)
        await scene.begin()
        scene.clock.advance(61)
        await scene.bind({"*": {"limits": {"rate": "2/m", "count": "3/9999w"}}})
        assert "3/9999w" in (await scene.refused()).reason
        assert [r["result"] for r in await scene.records() if r["phase"] == "refused"] == ["rate_limited"] * 2

    play(scenario)


def test_what_is_approved_is_one_call_of_one_agent_of_the_tool_and_server_as_they_are():
    rules = {"push": {"approval": {"required": True}}}
    call = {"branch": "main", "note": "secret plan"}

    async def scenario(scene):
        await scene.bind(rules)
        error = await scene.refused(call)
        assert isinstance(error, ApprovalRequired)
        assert (await scene.refused(call)).approval == error.approval
        shown = await scene.opened.get(f"approvals/requests/{error.approval}")
        assert (shown["agent"], shown["service"], shown["target"]) == ("agent/coder", "tools/git", "/push")
        assert shown["shape"] == ["/branch", "/note"]
        assert shown["tool_sha256"] == PIN
        assert "secret plan" not in str(shown)
        with pytest.raises(PolicyDenied):
            await scene.opened.ask("update", f"approvals/requests/{error.approval}/approve", {}, token=scene.token)
        await scene.approve(error.approval)
        # Another agent, other arguments, and another binding are other calls.
        other = await scene.agent("other")
        for how in ({"token": other}, {}):
            arguments = {**call, "branch": "prod"} if not how else call
            assert isinstance(await scene.refused(arguments, **how), ApprovalRequired)
        await scene.bind(rules, timeout="30s")
        assert isinstance(await scene.refused(call), ApprovalRequired)
        await scene.bind(rules)
        tries = await asyncio.gather(*(begun(scene, dict(reversed(call.items()))) for _ in range(5)))
        assert sorted(tries) == [False] * 4 + [True], "one approval is one call"
        done = [r for r in await scene.records() if r["phase"] == "intent" and r["path"] == "tools/git/push"]
        assert [record["approval"] for record in done] == [error.approval]
        # A tool that has changed since, and was looked at again, is approved anew.
        again = (await scene.refused(call)).approval
        await scene.approve(again)
        await scene.opened.ask("update", "tools/servers/git/pins", {"approve": {"push": OTHER}})
        assert isinstance(await scene.refused(call, digest=OTHER), ApprovalRequired)

    play(scenario)


async def begun(scene, arguments):
    with contextlib.suppress(ApprovalRequired):
        return bool(await scene.begin(arguments))
    return False


def test_a_person_denies_a_call_or_lets_it_through_for_some_time():
    async def scenario(scene):
        await scene.bind({"pu*": {"approval": {"required": True, "ttl": "10m"}}})
        first = (await scene.refused({"a": 1})).approval
        await scene.opened.ask("update", f"approvals/requests/{first}/deny", {})
        error = await scene.refused({"a": 1})
        assert isinstance(error, PolicyDenied)
        assert "denied this call" in error.reason
        second = (await scene.refused({"a": 2})).approval
        await scene.approve(second, **{"for": "1h", "kind": "target"})
        for number in range(3, 6):
            await scene.begin({"a": number})
        assert isinstance(await scene.refused({"a": 3}, tool="pull"), ApprovalRequired)
        scene.clock.advance(3601)
        assert isinstance(await scene.refused({"a": 3}), ApprovalRequired)

    play(scenario)


def test_a_use_is_one_intent_and_one_outcome_and_what_is_no_use_is_refused_on_record():
    async def scenario(scene):
        def own(records):
            return sorted((each["phase"], each["path"]) for each in records if each.get("caller") == "agent/coder")

        begun = await scene.begin({"branch": "main"})
        assert own(await scene.records()) == [("intent", "tools/git/push")]  # before anybody has sent anything
        ended = {"call": begun["call"], "proof": begun["proof"], "result": "ok"}
        await scene.opened.ask("update", "tools/own/end", ended, token=scene.token)
        assert own(await scene.records()) == [("intent", "tools/git/push"), ("outcome", "tools/git/push")]
        for path, body in (("end", {**ended, "proof": "0" * 64}), ("end", ended), ("begin", {"arguments": []})):
            with pytest.raises(KeyholeError):
                await scene.opened.ask("update", f"tools/own/{path}", body, token=scene.token)
        refused = [each for each in await scene.records() if each["phase"] == "refused"]
        assert sorted(each["path"] for each in refused) == ["tools//", "tools/own/end", "tools/own/end"]

    play(scenario)
