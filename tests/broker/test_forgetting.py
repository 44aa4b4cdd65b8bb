"""What is left in the process after the vault was sealed."""

from __future__ import annotations

import asyncio
import gc
import weakref

from broker.stack import Stack

VALUE = "value-of-the-sealed-vault-only"


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
