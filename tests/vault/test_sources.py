"""Sources: what a service lends that another mount makes at the moment of use, leased to who uses it."""

import asyncio
import json

import pytest

from keyhole.core.errors import Expired, NotFound, PolicyDenied, UpstreamUnreachable
from keyhole.core.record import Phase
from keyhole.core.request import Operation, Request
from keyhole.testing import FrozenClock
from vault.lab import Lab
from vault.world import SERVICE, agent, journal, org, play, policy_token, refusal, use

BOUND = {**SERVICE, "secret": "/lab/creds/reader#username"}


async def bound(vault, token=None, **fields):
    """A lab, and a service whose source it is."""
    lab = Lab().mount(vault)
    await vault.ask("update", "services/lab", {**BOUND, **fields}, token=token)
    return lab


def user(reply):
    return reply.lent["username"].reveal().decode()


def test_an_agent_uses_what_is_made_for_it_without_a_right_to_read_it():
    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"])
        assert isinstance(await refusal(vault.ask("read", "lab/creds/reader", token=token)), PolicyDenied)
        name = user(await use(vault, "services/lab", token))
        assert {f"v-{mark}" for mark in lab.alive} == {name}

    play(scenario)


def test_uses_of_one_token_share_a_lease_and_those_of_two_do_not():
    async def scenario(vault):
        lab = await bound(vault)
        one, two = [await agent(vault, name, services=["lab"]) for name in ("one", "two")]
        names = {user(reply) for reply in await asyncio.gather(*(use(vault, "services/lab", one) for _ in range(20)))}
        assert len(names) == 1
        assert user(await use(vault, "services/lab", two)) not in names
        assert len(lab.alive) == 2

    play(scenario)


def test_what_was_made_ends_with_the_token_and_the_next_use_of_another_gets_its_own():
    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"])
        await use(vault, "services/lab", token)
        await vault.ask("update", "auth/token/revoke-self", token=token)
        await lab.until_empty()
        again = await agent(vault, services=["lab"])
        assert user(await use(vault, "services/lab", again)) in {f"v-{mark}" for mark in lab.alive}

    play(scenario)


def test_a_lease_that_was_revoked_is_not_lent_again():
    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"])
        before = user(await use(vault, "services/lab", token))
        await vault.ask("update", "sys/leases/revoke-prefix/lab/creds")
        after = user(await use(vault, "services/lab", token))
        assert after != before
        assert {f"v-{mark}" for mark in lab.alive} == {after}

    play(scenario)


def test_values_are_made_anew_before_their_lease_ends():
    clock = FrozenClock()

    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"], ttl="3d")
        before = user(await use(vault, "services/lab", token))
        clock.advance(lab.ttl * 0.8)
        assert user(await use(vault, "services/lab", token)) == before
        clock.advance(lab.ttl * 0.15)
        assert user(await use(vault, "services/lab", token)) != before

    play(scenario, clock=clock)


def test_binding_a_source_needs_read_on_it():
    async def scenario(vault):
        Lab().mount(vault)
        writer = 'path "services/*" { capabilities = ["create", "update"] }'
        poor = await policy_token(vault, writer)
        error = await refusal(vault.ask("update", "services/lab", BOUND, token=poor))
        assert isinstance(error, PolicyDenied)
        assert "/lab/creds/reader" in error.reason
        rich = await policy_token(vault, writer + ' path "lab/creds/reader" { capabilities = ["read"] }')
        await vault.ask("update", "services/lab", BOUND, token=rich)

    play(scenario)


@pytest.mark.parametrize(
    "source", ["/none/creds/x", "/sys/health", "/cubbyhole/mine", "/lab/forget", "/agents/coder", "/services/lab"]
)
def test_what_is_no_source_lends_nothing_and_says_so(source):
    async def scenario(vault):
        await bound(vault, secret=source)
        token = await agent(vault, services=["lab"])
        await vault.ask("update", "cubbyhole/mine", {"value": "x"}, token=token)
        error = await refusal(use(vault, "services/lab", token))
        assert isinstance(error, NotFound)
        assert source in error.reason

    play(scenario)


def test_a_field_that_is_not_there_is_named_with_those_that_are():
    async def scenario(vault):
        await bound(vault, secret="/lab/creds/reader#pass")
        token = await agent(vault, services=["lab"])
        error = await refusal(use(vault, "services/lab", token))
        assert isinstance(error, NotFound)
        assert "username" in error.hint

    play(scenario)


def test_sources_of_another_org_do_not_exist():
    async def scenario(vault):
        lab = await bound(vault)
        theirs = await org(vault, "theirs")
        await vault.ask("update", "services/lab", {**SERVICE, "secret": "/ours/data/x"}, token=theirs)
        await vault.ask("update", "sys/mounts/ours", {"type": "kv", "options": {"version": "2"}})
        await vault.ask("update", "ours/data/x", {"data": {"value": "mine"}})
        token = await agent(vault, services=["lab"], token=theirs)
        assert isinstance(await refusal(use(vault, "services/lab", token)), NotFound)
        assert not lab.alive

    play(scenario)


def test_the_intent_is_durable_before_anything_is_made_and_a_failure_is_its_outcome():
    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"])
        seen = []

        async def look():
            seen.extend(record for _, record in await journal(vault))

        lab.meanwhile = look
        lab.fail_after_making = UpstreamUnreachable("the lab does not answer", "is it up?")
        assert isinstance(await refusal(use(vault, "services/lab", token)), UpstreamUnreachable)
        assert (seen[-1].phase, seen[-1].path) == (Phase.INTENT, "services/lab")
        assert seen[-1].secrets == ("/lab/creds/reader",)
        await lab.until_empty()
        results = [record.result for _, record in await journal(vault) if record.id == seen[-1].id]
        assert results[-1] == "upstream_unreachable"

    play(scenario)


def test_a_secret_of_another_kv_mount_and_a_one_time_password_are_sources():
    async def scenario(vault):
        await vault.ask("update", "sys/mounts/team", {"type": "kv", "options": {"version": "2"}})
        await vault.ask("update", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        await vault.ask("update", "sys/mounts/totp", {"type": "totp"})
        await vault.ask("update", "team/data/a/b", {"data": {"value": "second", "n": 5}})
        await vault.ask("update", "old/x", {"value": "first"})
        await vault.ask("update", "totp/keys/k", {"key": "JBSWY3DPEHPK3PXP"})
        found = {}
        for name, source in {
            "team": "/team/data/a/b",
            "n": "/team/data/a/b#n",
            "old": "/old/x",
            "k": "/totp/code/k",
        }.items():
            await vault.ask("update", f"services/{name}", {**SERVICE, "secret": source})
            token = await agent(vault, name, services=[name])
            [value] = (await use(vault, f"services/{name}", token)).lent.values()
            found[name] = value.reveal().decode()
        code = json.loads((await vault.ask("read", "totp/code/k")).data["code"].reveal())
        assert found == {"team": "second", "n": "5", "old": "first", "k": code}

    play(scenario)


def test_a_use_of_its_own_gets_a_lease_of_its_own_that_its_user_ends():
    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"])
        inner = vault.vault
        shared = user(await use(vault, "services/lab", token))
        state, caller = await inner.authenticate(token.encode())
        request = Request(token.encode(), Operation.USE, "services/lab", {"service": "lab"}, id="one")
        lent = await inner.use(state, caller, request, "services/lab", own=True)
        assert lent.secrets["username"].reveal().decode() != shared
        assert len(lab.alive) == 2
        await inner.expiry.end(state, lent.leases, wait=True)
        assert {f"v-{mark}" for mark in lab.alive} == {shared}

    play(scenario)


def test_looking_at_a_service_makes_nothing_and_tells_when_what_was_lent_has_ended():
    async def scenario(vault):
        lab = await bound(vault)
        token = await agent(vault, services=["lab"])
        inner = vault.vault
        state, caller = await inner.authenticate(token.encode())
        service = (await inner.services(state))["lab"]
        await inner.check_loan(state, caller, service)
        assert await inner.watched(state, service) == []
        assert not lab.alive
        name = user(await use(vault, "services/lab", token))
        await inner.check_loan(state, caller, service)
        assert [(field, value.reveal().decode()) for field, value in await inner.watched(state, service)] == [
            ("username", name)
        ]
        await vault.ask("update", "sys/leases/revoke-prefix/lab")
        assert isinstance(await refusal(inner.check_loan(state, caller, service)), Expired)

    play(scenario)


def test_who_can_use_a_source_is_told():
    async def scenario(vault):
        await bound(vault)
        await agent(vault, services=["lab"])
        answer = (await vault.ask("read", "sys/who-can/lab/creds/reader", {"source": "true"})).data
        assert (answer["secret"], answer["services"]) == ("/lab/creds/reader", ["lab"])
        assert answer["agents"] == [{"agent": "coder", "uses_through": ["lab"], "may": []}]

    play(scenario)


def test_a_value_without_a_lease_is_remembered_for_a_while_and_a_bounded_number_of_them():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        await vault.ask("update", "services/old", {**SERVICE, "secret": "/old/x"})
        token = await agent(vault, services=["old"])
        inner = vault.vault
        for number in range(20):
            await vault.ask("update", "old/x", {"value": f"value-number-{number}"})
            await use(vault, "services/old", token)
        state, _ = await inner.authenticate(token.encode())
        service = (await inner.services(state))["old"]
        known = [value.reveal().decode() for _, value in await inner.watched(state, service)]
        assert known == [f"value-number-{number}" for number in range(12, 20)]
        clock.advance(700)
        assert await inner.watched(state, service) == []
        await vault.ask("update", "services/old", {**SERVICE, "secret": "/old/y"})
        await vault.ask("update", "old/y", {"value": "another-value-1"})
        await use(vault, "services/old", token)
        assert len(inner.sources._recent) == 1

    play(scenario, clock=clock)
