"""A tunnel like one that there was is opened at once, and judged as if there had been none."""

from __future__ import annotations

import asyncio

import pytest

from broker.stack import SECRET, Stack
from keyhole.core.host import Authority

_NAME = "a.test"


async def _granted(stack: Stack) -> tuple[bytes, Authority]:
    """The token of an agent that may open tunnels, and where they lead."""
    await stack.secret("opened/key", SECRET)
    await stack.service("opened", secret="opened/key", hosts=[f"{_NAME}:{stack.secure}"])
    return (await stack.agent("opened", "opened")).encode(), Authority(_NAME, stack.secure)


def test_it_is_opened_without_waiting_until_anything_has_changed(stack: Stack, run) -> None:
    async def go() -> None:
        token, where = await _granted(stack)
        broker = stack.proxy.broker
        assert broker.tunnel_at_once(token, where, "", None) is None
        context = await broker.open_tunnel(token, *where, "", "", None)
        assert broker.tunnel_at_once(token, where, "", None) is context
        assert broker.tunnel_at_once(token, Authority(_NAME, stack.plain), "", None) is None
        assert broker.tunnel_at_once(token + b"x", where, "", None) is None
        await stack.ask("delete", "agents/opened/services/opened")
        assert broker.tunnel_at_once(token, where, "", None) is None

    run(go())


@pytest.mark.parametrize(("limit", "value"), [("calls", 0), ("agent_rate", 1.0)])
def test_who_has_a_share_already_is_refused_where_it_is_counted(
    stack: Stack, run, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    async def go() -> None:
        token, where = await _granted(stack)
        broker, shares = stack.proxy.broker, stack.keyhole.node.open_vault().shares
        context = await broker.open_tunnel(token, *where, "", "", None)
        await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(shares, "limits", shares.limits._replace(**{limit: value}))
            assert broker.tunnel_at_once(token, where, "", None) is None
        assert broker.tunnel_at_once(token, where, "", None) is context

    run(go())


def test_a_tunnel_waits_while_so_many_calls_are_being_judged_as_may_be(stack: Stack, run) -> None:
    async def go() -> None:
        token, where = await _granted(stack)
        broker, vault = stack.proxy.broker, stack.keyhole.node.open_vault()
        context = await broker.open_tunnel(token, *where, "", "", None)
        turns = [await vault.shares.begin(*vault.recognise(token)) for _ in range(vault.shares.limits.starting)]
        await asyncio.sleep(0)
        assert broker.tunnel_at_once(token, where, "", None) is None
        turns[0].end()
        assert broker.tunnel_at_once(token, where, "", None) is context
        for turn in turns:
            turn.end()

    run(go())


def test_in_one_pass_of_the_loop_so_many_are_opened_as_may_begin(stack: Stack, run) -> None:
    async def go() -> None:
        token, where = await _granted(stack)
        broker = stack.proxy.broker
        await broker.open_tunnel(token, *where, "", "", None)
        await asyncio.sleep(0)
        found = [broker.tunnel_at_once(token, where, "", None) is not None for _ in range(40)]
        assert found == sorted(found, reverse=True)
        assert 0 < sum(found) < 40

    run(go())
