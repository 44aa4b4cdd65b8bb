"""A seal that only a database names is not used, and whoever has to name it is told where."""

import asyncio

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.stores import Batch, open_store
from keyhole.vault.keys import Header
from keyhole.vault.node import Node


@pytest.mark.parametrize("recovery", [(0, 0), (5, 3)])
def test_a_server_with_the_new_seal_takes_no_share_for_an_old_one_that_it_cannot_name(recovery):
    async def scenario():
        store = await open_store("memory:")
        store.shared = True
        header = Header("vault", "awskms:alias/key", b"wrapped", 0, recovery)
        await store.commit(Batch(puts=[header.put()]))
        node = Node(store)
        node.configured = "shares:5:3"
        with pytest.raises(InvalidRequest) as refused:
            await node.migrate(b"a share")
        assert "operator migrate" in refused.value.hint
        assert node.migration.attempt is None
        await node.close()

    asyncio.run(scenario())
