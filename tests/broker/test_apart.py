"""Connections to upstreams that are kept warm: who had no part in making one does not use it."""

from __future__ import annotations

import pytest

from broker.h2_upstream import H2Upstream, context
from broker.stack import HOST, SECRET, Stack
from keyhole.core.errors import AddressDenied
from keyhole.core.message import Call


class World:
    """Two listeners of upstreams, and calls that count connections to them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.upstream = H2Upstream()
        self.port = 0

    async def prepare(self) -> None:
        self.port = await self.stack.listen(self.upstream, context())

    async def caller(self, token: str | bytes, secret: str) -> str:
        """The token of an agent in the org of ``token``, with a service that is called alike in every org."""
        hosts = [f"{HOST}:{self.stack.secure}", f"{HOST}:{self.port}"]
        await self.stack.secret("stripe/key", secret, token)
        await self.stack.service("same", hosts=hosts, token=token)
        return await self.stack.agent("same", "same", token=token)

    async def call(self, token: str, *, http2: bool) -> int:
        """Make a call; how many connections there have been to its upstream so far."""
        port = self.port if http2 else self.stack.secure
        call = Call(token.encode(), "https", HOST, port, "GET", b"/v1/x", [], None, http2=http2)
        answer = await self.stack.keyhole.broker.handle(call)
        assert answer.status == 200
        while answer.body is not None and await answer.body.read():
            pass
        return len(self.upstream.talks if http2 else self.stack.upstream.raw)

    def seen(self, *, http2: bool) -> list[bytes]:
        """The credentials that came, in turn."""
        if http2:
            return [each.headers[b"authorization"] for each in self.upstream.requests]
        return [value for each in self.stack.upstream.requests for value in each.values(b"authorization")]


@pytest.mark.parametrize("http2", [False, True])
def test_orgs_share_no_connection_though_all_is_called_alike(run, http2: bool) -> None:
    async def scene() -> None:
        async with Stack() as stack:
            world = World(stack)
            await world.prepare()
            root = str((await stack.ask("update", "sys/namespaces/acme"))["root_token"])
            ours, theirs = await world.caller(b"root", SECRET), await world.caller(root, "sk_live_of_another_org_1")
            counts = [await world.call(token, http2=http2) for token in (ours, ours, theirs, theirs, ours)]
            assert counts == [1, 1, 2, 2, 2]
            mine, other = f"Bearer {SECRET}".encode(), b"Bearer sk_live_of_another_org_1"
            assert world.seen(http2=http2) == [mine, mine, other, other, mine]

    run(scene())


@pytest.mark.parametrize("http2", [False, True])
def test_a_connection_to_an_address_that_is_allowed_no_more_is_not_used(run, http2: bool) -> None:
    async def scene() -> None:
        async with Stack() as stack:
            world = World(stack)
            await world.prepare()
            token = await world.caller(b"root", SECRET)
            assert await world.call(token, http2=http2) == 1
            hosts = [f"{HOST}:{stack.secure}", f"{HOST}:{world.port}"]
            await stack.service("same", hosts=hosts, allow_addresses=[])
            with pytest.raises(AddressDenied):
                await world.call(token, http2=http2)
            assert len(world.seen(http2=http2)) == 1

    run(scene())
