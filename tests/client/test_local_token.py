"""A local vault makes a token for its own calls; it does not outlive them."""

from collections.abc import Mapping
from typing import Any

from keyhole.app import Keyhole, open_ephemeral
from keyhole.client.local import LocalTransport
from keyhole.config import Config
from keyhole.core.request import LocalOwner, Operation, Reply, Request


class Opened:
    """A vault in memory that stays open beyond the transport, so that one can look into it afterwards."""

    def __init__(self) -> None:
        self.keyhole: Keyhole | None = None

    async def ask(self, operation: str, path: str, data: Mapping[str, Any], *, token: str, org: str) -> Reply:
        if self.keyhole is None:
            self.keyhole, _ = await open_ephemeral(Config())
        credential = token.encode() if token else LocalOwner()
        return await self.keyhole.node.handle(Request(credential, Operation(operation), path, data, org))

    async def start_proxy(self) -> tuple[str, str]:
        return "http://127.0.0.1:9", ""

    async def close(self) -> None:
        return None


def test_the_token_of_local_calls_ends_with_them() -> None:
    opened = Opened()
    transport = LocalTransport(opened)
    before = transport.ask("list", "auth/token/accessors", {}).data["keys"]
    transport.road()
    assert len(transport.ask("list", "auth/token/accessors", {}).data["keys"]) == len(before) + 1
    transport.close()
    assert transport.ask("list", "auth/token/accessors", {}).data["keys"] == before
    transport.close()
