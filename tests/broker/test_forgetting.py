"""What is left in the process after a call, and after the vault was sealed."""

from __future__ import annotations

import asyncio
import gc
import weakref

from broker.stack import Stack, until
from keyhole.broker.transaction import Transaction

VALUE = "value-of-the-sealed-vault-only"


def made_with(token: str) -> list[Transaction]:
    """Calls with this token that are in memory."""
    return [each for each in gc.get_objects() if isinstance(each, Transaction) and each.call.token == token.encode()]


def test_a_sealed_vault_leaves_neither_keys_nor_values_behind() -> None:
    async def main() -> None:
        async with Stack() as stack:
            await stack.secret("stripe/key", VALUE)
            await stack.service("stripe")
            token = await stack.agent("coder", "stripe")
            assert (await stack.get(token)).status == 200
            vault = stack.keyhole.node.vault
            assert vault is not None
            left = [weakref.ref(vault), weakref.ref(vault.keys), weakref.ref(stack.keyhole.broker.authorities(vault))]
            del vault
            gc.freeze()  # a program may have done so, and then no collector frees what is held in a cycle
            await stack.keyhole.node.seal()
            await asyncio.sleep(0)
            assert [ref() for ref in left] == [None, None, None]
            assert not [held for held in gc.get_objects() if isinstance(held, tuple) and VALUE.encode() in held]

    asyncio.run(main())


def test_who_opened_tunnels_lately_is_forgotten_with_the_vault() -> None:
    async def main() -> None:
        async with Stack() as stack:
            await stack.secret("stripe/key", VALUE)
            await stack.service("stripe")
            token = await stack.agent("coder", "stripe")
            _, writer = await stack.tunnel(token)
            writer.close()
            regulars = stack.proxy.regulars
            assert len(regulars) == 1
            await stack.keyhole.node.seal()
            assert len(regulars) == 0

    asyncio.run(main())


def test_a_call_and_its_credential_are_gone_while_the_body_of_its_answer_flows() -> None:
    async def main() -> None:
        async with Stack() as stack:
            await stack.secret("stripe/key", VALUE)
            await stack.service("stripe")
            token = await stack.agent("coder", "stripe")
            go_on = asyncio.Event()

            async def slowly(_request, writer) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
                await go_on.wait()
                writer.write(b"cd")

            stack.upstream.say = slowly
            asking = asyncio.create_task(stack.get(token))
            try:
                await until(lambda: any(flow.flowing for flow in stack.keyhole.broker._resources.live))
                await until(lambda: not made_with(token), 5)
            finally:
                go_on.set()
            assert (await asking).body == b"abcd"

    gc.disable()  # none is to be needed
    try:
        asyncio.run(main())
    finally:
        gc.enable()
