"""A vault whose making was cut off after its keys were written is not lost."""

import asyncio

from keyhole.core.request import LocalOwner, Operation, Request
from keyhole.stores import Batch, Delete
from keyhole.testing import MemorySeal, open_vault


def test_a_vault_whose_making_was_cut_off_opens_for_its_owner() -> None:
    async def run() -> None:
        seal = MemorySeal()
        async with open_vault(seal=seal) as opened:
            node, store = opened.node, opened.node.store
            await node.seal()
            keys = [key for key in await store.list("") if key.startswith("sys/orgs/")]
            entries = await store.get(keys)
            await store.commit(Batch(deletes=[Delete(k, e.revision) for k, e in zip(keys, entries, strict=True)]))
            await node.unseal(seal=seal)
            reply = await node.handle(Request(LocalOwner(), Operation.READ, "sys/org"))
            assert (reply.data or {})["name"] == "root"

    asyncio.run(run())
