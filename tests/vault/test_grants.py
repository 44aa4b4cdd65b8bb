"""Granting writes into a policy that people also write by hand; what they wrote keeps its meaning."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from keyhole.app import open_ephemeral
from keyhole.config import Config
from keyhole.core.errors import Conflict
from keyhole.vault import policies
from keyhole.vault.hcl import parse_policy
from keyhole.vault.storage import Storage

JSON_POLICY = '{"path": {"services/a": {"capabilities": ["use"]}}}'


def with_policies(act: Callable[[Storage], Awaitable[None]]) -> None:
    async def run() -> None:
        keyhole, _ = await open_ephemeral(Config(vault="memory:"))
        vault = keyhole.node.open_vault()
        try:
            await act(vault.storage(vault.root_org, policies.MOUNT, configures=True))
        finally:
            await keyhole.close()

    asyncio.run(run())


@pytest.mark.parametrize("text", [JSON_POLICY, 'path "services/a" { capabilities = ["use"] } # no newline'])
def test_the_text_of_a_policy_says_what_its_rules_say_after_a_grant(text: str) -> None:
    async def act(storage: Storage) -> None:
        await policies.write(storage, "p", text)
        assert await policies.set_capability(storage, "p", "services/b", "use", given=True)
        stored = await policies.read(storage, "p")
        assert stored is not None
        assert parse_policy(stored["text"]) == stored["rules"]
        assert {rule["path"] for rule in stored["rules"]} == {"services/a", "services/b"}

    with_policies(act)


def test_taking_a_grant_back_keeps_the_stanzas_that_shadow_wider_ones() -> None:
    async def act(storage: Storage) -> None:
        text = 'path "services/*" { capabilities = ["use"] }\npath "services/a" { capabilities = [] }\n'
        await policies.write(storage, "p", text)
        await policies.set_capability(storage, "p", "services/b", "use", given=True)
        assert await policies.set_capability(storage, "p", "services/b", "use", given=False)
        rules = {rule["path"]: rule["capabilities"] for rule in (await policies.read(storage, "p") or {})["rules"]}
        assert rules == {"services/*": ["use"], "services/a": []}

    with_policies(act)


def test_a_grant_that_a_deny_would_swallow_is_refused() -> None:
    async def act(storage: Storage) -> None:
        await policies.write(storage, "p", 'path "services/a" { capabilities = ["deny"] }')
        with pytest.raises(Conflict):
            await policies.set_capability(storage, "p", "services/a", "use", given=True)

    with_policies(act)
