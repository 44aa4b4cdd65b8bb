"""Tokens for one task of an agent: short, counted, for a part of what the agent may, from one place; and no way out."""

import asyncio

import pytest

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.request import Operation, Request
from keyhole.testing import FrozenClock
from keyhole.vault.sys import agent_tokens
from vault.world import agent, play, policy_token, refusal, stripe, use

MINT = 'path "agents/+/token" { capabilities = ["update"] }\n'
USE = 'path "services/*" { capabilities = ["use"] }\n'
READ = 'path "secret/data/*" { capabilities = ["read"] }\n'


async def two_services(vault):
    await stripe(vault)
    service = {"hosts": ["api.github.com"], "secret": "stripe/api-key", "inject": {"kind": "bearer"}}
    await vault.ask("update", "services/github", service)
    return await agent(vault, services=["stripe", "github"])


async def mint(vault, *, token=None, **fields):
    return (await vault.ask("update", "agents/coder/token", fields, token=token)).data["token"]


def test_a_new_agent_sees_itself_and_names_and_nothing_more():
    async def scenario(vault):
        await two_services(vault)
        token = await agent(vault, "fresh")
        found = (await vault.ask("read", "auth/token/lookup-self", token=token)).data
        assert (found["path"], found["policies"]) == ("agents/fresh/token", ["agent/fresh", "default"])
        assert (await vault.ask("update", "auth/token/renew-self", token=token)).auth["lease_duration"] == 86400
        assert (await vault.ask("read", "sys/what-can", token=token)).data["services"] == []
        await vault.ask("update", "agents/fresh/services/stripe")
        names = (await vault.ask("read", "sys/what-can", token=token)).data
        assert (names["agent"], [each["name"] for each in names["services"]]) == ("agent/fresh", ["stripe"])
        for operation, path in (
            ("read", "secret/data/stripe/api-key"),
            ("list", "secret/metadata"),
            ("read", "services/stripe"),
            ("list", "services"),
            ("read", "sys/what-can/coder"),
            ("list", "agents"),
            ("update", "auth/token/create"),
            ("update", "agents/fresh/token"),
        ):
            assert isinstance(await refusal(vault.ask(operation, path, token=token)), PolicyDenied), path

    play(scenario)


def test_a_task_token_has_all_its_limits_from_one_call():
    clock = FrozenClock()

    async def scenario(vault):
        await two_services(vault)
        fields = {
            "ttl": "10m",
            "explicit_max_ttl": "15m",
            "num_uses": 4,
            "services": ["stripe"],
            "bound_cidrs": ["10.1.0.0/16"],
            "run": "4711",
            "step": "test",
        }
        token = await mint(vault, **fields)

        def ask(operation, path, remote):
            request = Request(token.encode(), Operation(operation), path, {"service": "x"}, remote=remote)
            return vault.node.handle(request)

        found = (await ask("read", "auth/token/lookup-self", "10.1.2.3")).data
        assert (found["ttl"], found["explicit_max_ttl"], found["num_uses"]) == (600, 900, 3)
        assert (found["services"], found["bound_cidrs"]) == (["stripe"], ["10.1.0.0/16"])
        assert (found["run"], found["step"]) == ("4711", "test")
        assert isinstance(await refusal(ask("read", "auth/token/lookup-self", "192.0.2.1")), Unauthenticated)
        assert isinstance(await refusal(ask("use", "services/github", "10.1.2.3")), PolicyDenied)
        assert (await ask("use", "services/stripe", "10.1.2.3")).lent
        clock.advance(601)
        assert isinstance(await refusal(ask("use", "services/stripe", "10.1.2.3")), Unauthenticated)

    play(scenario, clock=clock)


def test_what_is_taken_back_from_the_agent_is_taken_from_its_task_tokens():
    async def scenario(vault):
        await two_services(vault)
        token = await mint(vault, services=["stripe"])
        assert await use(vault, "services/stripe", token)
        await vault.ask("delete", "agents/coder/services/stripe")
        assert isinstance(await refusal(use(vault, "services/stripe", token)), PolicyDenied)

    play(scenario)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"services": ["nowhere"]}, NotFound),
        ({"services": "a b"}, InvalidRequest),
        ({"services": [1]}, InvalidRequest),
        ({"policies": ["nowhere"]}, NotFound),
        ({"policies": ["root"]}, InvalidRequest),
        ({"policies": ["default", "root"]}, InvalidRequest),
        ({"bound_cidrs": ["x"]}, InvalidRequest),
        ({"explicit_max_ttl": "soon"}, InvalidRequest),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(fields, error):
    async def scenario(vault):
        await two_services(vault)
        assert isinstance(await refusal(mint(vault, **fields)), error)

    play(scenario)


def test_a_policy_of_a_task_token_is_the_agents_or_of_who_makes_it():
    async def scenario(vault):
        await two_services(vault)
        await vault.ask("update", "sys/policies/acl/reader", {"policy": READ})
        token = await mint(vault, policies=["reader"])
        assert await vault.get("secret/data/stripe/api-key", token=token)
        assert isinstance(await refusal(use(vault, "services/stripe", token)), PolicyDenied)
        bare = await mint(vault, policies=["default"])
        assert isinstance(await refusal(use(vault, "services/stripe", bare)), PolicyDenied)
        maker = await policy_token(vault, MINT + USE)
        assert isinstance(await refusal(mint(vault, token=maker, policies=["reader"])), PolicyDenied)
        assert await use(vault, "services/stripe", await mint(vault, token=maker, policies=["given"]))

    play(scenario)


def test_a_task_token_makes_no_wider_one():
    async def scenario(vault):
        await two_services(vault)
        await vault.ask("update", "sys/policies/acl/given", {"policy": MINT})
        await vault.ask("update", "agents/coder/services/stripe")
        text = (
            MINT
            + 'path "services/stripe" { capabilities = ["use"] }\npath "services/github" { capabilities = ["use"] }'
        )
        await vault.ask("update", "sys/policies/acl/agent/coder", {"policy": text})
        narrow = await mint(vault, services=["stripe"])
        below = await mint(vault, token=narrow)
        assert await use(vault, "services/stripe", below)
        assert isinstance(await refusal(use(vault, "services/github", below)), PolicyDenied)
        assert isinstance(await refusal(mint(vault, token=narrow, services=["github"])), InvalidRequest)

    play(scenario)


def test_a_bound_token_makes_none_for_elsewhere():
    async def scenario(vault):
        await two_services(vault)
        text = MINT.replace('"update"', '"update", "sudo"')
        await vault.ask("update", "sys/policies/acl/agent/coder", {"policy": text})
        bound = await mint(vault, bound_cidrs=["10.0.0.0/8"])

        async def below(**fields):
            request = Request(bound.encode(), Operation.UPDATE, "agents/coder/token", fields, remote="10.0.0.1")
            return (await vault.node.handle(request)).data["token"]

        for fields in ({"bound_cidrs": ["0.0.0.0/0"]}, {"bound_cidrs": ["10.0.0.0/8", "192.0.2.1"]}):
            assert isinstance(await refusal(below(**fields)), InvalidRequest)
        for token in (await below(), await below(bound_cidrs=["10.2.0.0/16"])):
            ask = Request(token.encode(), Operation.READ, "auth/token/lookup-self", remote="192.0.2.1")
            assert isinstance(await refusal(vault.node.handle(ask)), Unauthenticated)

    play(scenario)


def test_an_answer_that_has_to_be_wrapped_is_not_given_as_it_is():
    async def scenario(vault):
        await stripe(vault)
        text = 'path "secret/data/*" { capabilities = ["read"] min_wrapping_ttl = "30s" max_wrapping_ttl = "1h" }'
        token = await policy_token(vault, text)
        for ttl, allowed in ((0, False), (29, False), (30, True), (3600, True), (3601, False)):
            ask = Request(token.encode(), Operation.READ, "secret/data/stripe/api-key", wrap_ttl=ttl)
            assert (await refusal(vault.node.handle(ask)) is None) is allowed, ttl

    play(scenario)


def test_live_tokens_are_counted_listed_without_themselves_and_ended_one_by_one():
    clock = FrozenClock()

    async def scenario(vault):
        await two_services(vault)
        short, once = await mint(vault, ttl="1m"), await mint(vault, num_uses=1, services=["stripe"])
        found = (await vault.ask("read", "agents/coder/tokens")).data
        assert (len(found["tokens"]), found["total"]) == (3, 3)
        assert not any(token in str(found) for token in (short, once))
        [narrow] = [token for token in found["tokens"] if "services" in token]
        assert (narrow["services"], narrow["num_uses"]) == (["stripe"], 1)
        await vault.ask("read", "auth/token/lookup-self", token=once)
        clock.advance(61)
        [left] = (await vault.ask("read", "agents/coder/tokens")).data["tokens"]
        assert (await vault.ask("read", "agents/coder")).data["tokens"] == 1
        await vault.ask("update", "agents/other")
        for name, accessor, kind in (
            ("other", left["accessor"], NotFound),
            ("coder", "", InvalidRequest),
            ("coder", 7, InvalidRequest),
            ("coder", "of-nobody", NotFound),
        ):
            refused = await refusal(vault.ask("update", f"agents/{name}/revoke", {"accessor": accessor}))
            assert isinstance(refused, kind), (name, accessor)
        ended = await vault.ask("update", "agents/coder/revoke", {"accessor": left["accessor"]})
        assert ended.data["revoked"] == 1
        assert (await vault.ask("read", "agents/coder/tokens")).data == {"tokens": [], "total": 0}

    play(scenario, clock=clock)


def test_others_have_their_turn_while_many_tokens_are_looked_at(monkeypatch):
    monkeypatch.setattr(agent_tokens, "_PAGE", 1)
    turns = []

    async def others():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    async def scenario(vault):
        await agent(vault)
        for _ in range(8):
            await mint(vault)
        org_id, working = vault.vault.root_org, asyncio.create_task(others())
        await asyncio.sleep(0)
        before = len(turns)
        live = await agent_tokens.live_tokens(vault.vault, org_id, "coder", vault.vault.clock.now())
        working.cancel()
        assert len(turns) - before >= len(live) > 7

    play(scenario)
