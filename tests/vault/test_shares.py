"""What an org or an agent may take of a process, at the edge of each limit, and that all of it is given back."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from keyhole.core.errors import NotFound, RateLimited, Unauthenticated
from keyhole.core.fair import ASKING
from keyhole.core.identity import Caller
from keyhole.core.policy import Acl
from keyhole.core.shares import ShareLimits
from keyhole.testing import FrozenClock, open_vault
from keyhole.vault.shares import Shares, Turn

LIMITS = ShareLimits(org=0.75, agent=0.5, calls=8, held=800, certificates=8)


class Door:
    """Shares without a vault, asked for orgs and agents that need not exist."""

    def __init__(self, limits: ShareLimits, clock: FrozenClock) -> None:
        journal = SimpleNamespace(outcome=lambda *_record: None)
        keys = SimpleNamespace(has_ring=lambda _org: True)
        vault: Any = SimpleNamespace(clock=SimpleNamespace(now=clock), journal=journal, keys=keys)
        self.shares = Shares(vault)
        self.shares.limits = limits

    def who(self, org: str = "o", agent: str = "agent/a") -> tuple[Any, Caller]:
        state = SimpleNamespace(org=SimpleNamespace(id=f"id-of-{org}", name=org))
        return state, Caller(org, f"id-of-{org}", agent, "", "full", (), Acl([]))

    async def begin(self, org: str = "o", agent: str = "agent/a") -> Turn:
        return await self.shares.begin(*self.who(org, agent))


def with_door(job: Callable[[Door], Awaitable[None]], limits: ShareLimits = LIMITS, clock: FrozenClock | None = None):
    async def main() -> None:
        door = Door(limits, clock or FrozenClock())
        await job(door)
        door.shares.flush()

    asyncio.run(main())


async def passes(count: int) -> None:
    """Let the loop go round, for who waits for admission."""
    for _ in range(count):
        await asyncio.sleep(0)


def untouched(shares: Shares) -> bool:
    """Whether nothing is counted for anybody."""
    counted = [shares._all, *(tenant.all for tenant in shares._tenants.values())]
    agents = [agent for tenant in shares._tenants.values() for agent in tenant.agents]
    starting = [tenant for tenant in shares._tenants.values() if tenant.starting._started or tenant.starting._line]
    return not agents and not starting and not any(used.calls or used.held or used.sessions for used in counted)


def test_work_that_goes_on_when_its_caller_has_gone_counts_until_it_ends():
    async def job(door: Door) -> None:
        work, ends = asyncio.get_running_loop().create_future(), []
        turn = await door.begin()
        turn.take(100)
        turn.then(lambda: ends.append(1))
        turn.outlast(work)
        turn.end()
        turn.end()
        assert (door.shares._all.calls, door.shares._all.held, ends) == (1, 100, [])
        work.set_result(None)
        await asyncio.sleep(0)
        assert ends == [1]
        assert untouched(door.shares)

    with_door(job)


def test_the_call_over_an_agents_share_is_refused_until_one_ends():
    async def job(door: Door) -> None:
        turns = [await door.begin() for _ in range(4)]
        with pytest.raises(RateLimited, match="this agent has its share of 4 calls under way") as refused:
            await door.begin()
        assert refused.value.retry_after == 1
        assert refused.value.hint
        others = [await door.begin(agent="agent/b") for _ in range(2)]  # who has a share of its own, and the org's rest
        turns.pop().end()
        turns.append(await door.begin())
        for turn in (*turns, *others):
            turn.end()
        assert untouched(door.shares)

    with_door(job)


def test_the_call_over_an_orgs_share_is_refused_and_others_are_untouched():
    async def job(door: Door) -> None:
        for agent in "aab":
            for _ in range(2):
                await door.begin(agent=agent)
        with pytest.raises(RateLimited, match="this org has its share of 6 calls"):
            await door.begin(agent="c")
        await door.begin("other")
        await door.begin("other")
        with pytest.raises(RateLimited, match="the server has all of its 8 calls"):
            await door.begin("third")

    with_door(job)


def test_an_operator_gives_single_orgs_another_part():
    async def job(door: Door) -> None:
        await door.begin("small")
        with pytest.raises(RateLimited, match="this agent has its share of 1 calls"):
            await door.begin("small")

    with_door(job, ShareLimits(orgs={"small": 0.125}, calls=8))


def test_an_end_said_twice_counts_once():
    async def job(door: Door) -> None:
        one, _two = await door.begin(), await door.begin()
        ends = []
        one.then(lambda: ends.append(1))
        one.end()
        one.end()
        assert (door.shares._all.calls, ends) == (1, [1])

    with_door(job)


def test_bytes_over_a_share_are_refused_and_what_was_held_is_given_back():
    async def job(door: Door) -> None:
        turn = await door.begin()
        turn.take(399)
        turn.take(1)
        with pytest.raises(RateLimited, match="this agent has its share of 400 bytes of bodies in memory"):
            turn.take(1)
        other = door.shares.holding(*door.who(agent="agent/b"))
        with pytest.raises(RateLimited, match="this org has its share of 600 bytes"):
            other.take(201)
        other.take(200)
        turn.end()
        other.release()
        other.release()
        assert untouched(door.shares)

    with_door(job)


def test_new_certificates_are_counted_by_the_minute_and_come_back():
    clock = FrozenClock()

    async def job(door: Door) -> None:
        for agent in ("a", "a", "a", "a"):
            door.shares.take_certificate(*door.who(agent=agent))
        with pytest.raises(RateLimited, match="this agent gets certificates for 4 new hosts a minute") as refused:
            door.shares.take_certificate(*door.who(agent="a"))
        assert refused.value.retry_after == 15
        for _ in range(2):
            door.shares.take_certificate(*door.who(agent="b"))
        with pytest.raises(RateLimited, match="this org gets certificates for 6"):
            door.shares.take_certificate(*door.who(agent="b"))
        door.shares.take_certificate(*door.who("other", "a"))
        clock.advance(15)
        door.shares.take_certificate(*door.who(agent="a"))

    with_door(job, clock=clock)


def test_a_rate_of_the_operator_holds_for_an_agent_and_for_an_org():
    clock = FrozenClock()

    async def job(door: Door) -> None:
        for agent in ("a", "a", "b"):
            (await door.begin(agent=agent)).end()
        with pytest.raises(RateLimited, match="this agent may ask 2 times a second"):
            await door.begin(agent="a")
        with pytest.raises(RateLimited, match="this org may ask 3 times a second"):
            await door.begin(agent="c")
        clock.advance(1)
        (await door.begin(agent="a")).end()
        assert untouched(door.shares)

    with_door(job, ShareLimits(agent_rate=2, org_rate=3), clock)


def test_what_is_refused_after_the_vault_was_closed_is_counted_and_waits_for_no_record():
    async def job(door: Door) -> None:
        door.shares.close()
        turns = [await door.begin() for _ in range(4)]
        with pytest.raises(RateLimited):
            await door.begin()
        assert (door.shares.refused["calls"], door.shares._timer) == (1, None)
        for turn in turns:
            turn.end()

    with_door(job)


def test_sessions_have_a_share_of_their_own():
    async def job(door: Door) -> None:
        ends = [door.shares.session(*door.who(), 4) for _ in range(2)]
        with pytest.raises(RateLimited, match="this agent has its share of 2 sessions with databases"):
            door.shares.session(*door.who(), 4)
        for end in (*ends, *ends):
            end()
        assert untouched(door.shares)

    with_door(job)


def test_while_much_is_judged_the_agents_of_an_org_take_turns_and_other_orgs_wait_for_nobody():
    async def job(door: Door) -> None:
        first = await door.begin(agent="flood")
        order: list[str] = []

        async def one(agent: str) -> None:
            turn = await door.begin(agent=agent)
            order.append(agent)
            turn.end()

        waiting = [asyncio.create_task(one(agent)) for agent in ("flood", "flood", "flood", "quiet")]
        await passes(8)
        (await door.begin("other")).end()
        assert order == []
        first.started()
        await asyncio.gather(*waiting)
        assert order == ["flood", "quiet", "flood", "flood"]
        first.end()
        assert untouched(door.shares)

    with_door(job, ShareLimits(starting=1, patience=3600))


def test_what_takes_long_to_be_judged_makes_room_for_who_waits():
    async def job(door: Door) -> None:
        slow = await door.begin()
        (await door.begin()).end()
        slow.end()
        assert untouched(door.shares)

    with_door(job, ShareLimits(starting=1, patience=0.01))


def test_of_too_many_that_wait_who_has_most_is_refused():
    async def job(door: Door) -> None:
        first = await door.begin()
        waiting = [asyncio.create_task(door.begin(agent=agent)) for agent in ("a", "a", "b", "a")]
        await passes(8)
        first.end()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        for each in found:
            if isinstance(each, Turn):
                each.end()
        assert [isinstance(each, RateLimited) for each in found] == [False, True, False, True]
        assert door.shares.refused["turns"] == 2
        assert untouched(door.shares)

    # Each begins as soon as the one before has ended, or has taken too long.
    with_door(job, ShareLimits(starting=1, waiting=2, patience=0.01))


def test_refusals_are_counted_in_the_journal_of_the_org_and_in_the_figures():
    async def main() -> None:
        async with open_vault() as vault:
            door = vault.vault
            door.shares.limits = LIMITS
            state, caller = await door.authenticate(vault.token.encode())
            turns = [await door.shares.begin(state, caller) for _ in range(4)]
            for _ in range(3):
                with pytest.raises(RateLimited, match="4 calls under way"):
                    await vault.ask("read", "secret/data/x")
            for turn in turns:
                turn.end()
            door.shares.flush()
            await door.journal.drain()
            reply = await vault.ask("read", "sys/audit-log", {"result": "rate_limited"})
            [record] = reply.data["records"]
            assert (record["caller"], record["rule"], record["count"]) == ("user/root", "share of calls", 3)
            assert 'keyhole_share_refusals_total{share="calls"} 3' in door.meters.totals()

    asyncio.run(main())


def test_a_request_of_the_api_has_its_place_while_it_runs_and_gives_it_back():
    async def main() -> None:
        async with open_vault() as vault:
            await vault.ask("update", "secret/data/x", {"data": {"value": "1"}})
            with pytest.raises(NotFound):
                await vault.ask("read", "secret/data/none")
            assert untouched(vault.vault.shares)
            assert ASKING.get() == (vault.vault.root_org, "user/root")

    asyncio.run(main())


def test_who_was_known_before_something_changed_waits_as_who_they_are_and_after_the_end_as_a_stranger(monkeypatch):
    waits = []

    async def main() -> None:
        async with open_vault() as vault:
            root, admission = vault.vault.root_org, vault.vault.shares.admission
            made = await vault.ask("update", "auth/token/create", {"policies": ["default"]})
            token = made.auth["client_token"]
            monkeypatch.setattr(type(admission), "enter", lambda _self, whose: waits.append(whose) or True)

            async def ask() -> list[Any]:
                waits.clear()
                with contextlib.suppress(Unauthenticated):
                    await vault.ask("read", "auth/token/lookup-self", token=token)
                return list(waits)

            stranger, [agent] = ("", root), {whose for whose in await ask() if whose[0]}
            assert agent[0] == root
            assert await ask() == [agent]
            await vault.ask("update", "secret/data/x", {"data": {"value": "1"}})
            assert await ask() == [agent, agent]
            await vault.ask("update", "auth/token/revoke", {"token": token})
            assert await ask() == [agent]
            assert await ask() == [stranger]

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_counted_any_more_once_all_has_ended(seed):
    """Calls begin, wait, hold bytes, are refused, fail, are cancelled and end, in any order."""

    async def job(door: Door) -> None:
        dice = random.Random(seed)

        async def one(org: str, agent: str) -> None:
            turn = await door.begin(org, agent)
            try:
                for _ in range(dice.randrange(3)):
                    await asyncio.sleep(0)
                    turn.take(dice.randrange(1, 120))
                if dice.random() < 0.5:
                    turn.started()
                await asyncio.sleep(0)
                if dice.random() < 0.3:
                    turn.release()
                if dice.random() < 0.2:
                    raise ValueError("the call broke off")
                end = door.shares.session(*door.who(org, agent), 4)
                try:
                    await asyncio.sleep(0)
                finally:
                    end()
            finally:
                turn.end()

        tasks: list[asyncio.Task[None]] = []
        for _ in range(150):
            tasks.append(asyncio.create_task(one(dice.choice("pq"), dice.choice("abc"))))
            if dice.random() < 0.3:
                dice.choice(tasks).cancel()
            if dice.random() < 0.7:
                await asyncio.sleep(0)
        for task in tasks:
            with contextlib.suppress(RateLimited, ValueError, asyncio.CancelledError):
                await task
        assert untouched(door.shares)

    with_door(job, ShareLimits(calls=20, held=600, starting=2, waiting=4, patience=0.005))
