"""A login's token and its intent go to the disk together: never the one without the other, and never two that clash."""

import asyncio
import json

from keyhole.core.errors import Conflict, StoreUnavailable
from keyhole.core.record import Phase, Record
from keyhole.core.request import Anonymous
from keyhole.stores import Batch, Check, Put, open_store
from keyhole.testing import open_vault
from vault.world import recorded, refusal


class Watched:
    """A store that notes what is committed, and can refuse it."""

    def __init__(self, store):
        self._store = store
        self.batches = []
        self.refuse = lambda _batch: None

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, batch):
        if error := self.refuse(batch):
            raise error
        await self._store.commit(batch)
        self.batches.append(batch)


def watched(scenario):
    async def main():
        store = Watched(await open_store("memory:", create=True))
        async with open_vault(store=store) as vault:
            await vault.ask("update", "sys/auth/approle", {"type": "approle"})
            await vault.ask("update", "auth/approle/role/ci", {"token_policies": "app"})
            role = (await vault.ask("read", "auth/approle/role/ci/role-id")).data["role_id"]
            made = (await vault.ask("update", "auth/approle/role/ci/secret-id", {})).data
            secret = json.loads(made["secret_id"].reveal())

            async def log_in():
                data = {"role_id": role, "secret_id": secret}
                return await vault.ask("update", "auth/approle/login", data, token=Anonymous())

            await log_in()  # makes the entity
            await vault.vault.journal.drain()
            store.batches.clear()
            await scenario(vault, store, log_in)

    asyncio.run(main())


async def tokens(vault):
    return set(await vault.vault.tokens.accessors(vault.vault.storage(vault.vault.root_org, "tokens")))


def test_a_login_is_one_commit_of_its_intent_and_its_token():
    async def scenario(vault, store, log_in):
        async with recorded(vault) as found:
            reply = await log_in()
            made = [batch for batch in store.batches if batch.puts]
        assert len(made) == 1
        assert made[0].appends
        assert [record.phase for record in found] == [Phase.INTENT, Phase.OUTCOME]
        assert (await vault.ask("read", "auth/token/lookup-self", token=reply.auth["client_token"])).data

    watched(scenario)


def test_logins_at_once_share_the_commit_and_each_gets_its_own_token():
    async def scenario(vault, store, log_in):
        async with recorded(vault) as found:
            replies = await asyncio.gather(*(log_in() for _ in range(20)))
            made = [batch for batch in store.batches if batch.puts]
        assert len(made) < 20
        assert all(batch.appends for batch in made)
        assert len({reply.auth["accessor"] for reply in replies} & await tokens(vault)) == 20
        assert [record.phase for record in found].count(Phase.INTENT) == 20

    watched(scenario)


def test_a_login_that_cannot_be_recorded_makes_no_token():
    async def scenario(vault, store, log_in):
        before = await tokens(vault)
        store.refuse = lambda batch: StoreUnavailable("the disk is full") if batch.appends else None
        error = await refusal(log_in())
        assert error.code == "audit_unavailable"
        assert await tokens(vault) == before
        store.refuse = lambda _batch: None
        reply = await log_in()
        assert await tokens(vault) == before | {reply.auth["accessor"]}

    watched(scenario)


def test_a_token_that_cannot_go_with_the_record_is_made_after_it():
    async def scenario(vault, store, log_in):
        store.refuse = lambda batch: Conflict("no longer so") if batch.appends and batch.puts else None
        async with recorded(vault) as found:
            replies = await asyncio.gather(*(log_in() for _ in range(3)))
        order = [bool(batch.appends) for batch in store.batches]
        assert order[0]  # the intents are durable before the first token is
        assert {reply.auth["accessor"] for reply in replies} <= await tokens(vault)
        assert [record.phase for record in found].count(Phase.INTENT) == 3

    watched(scenario)


def test_of_two_changes_that_clash_only_the_first_goes_with_the_records():
    async def scenario(vault, store, _log_in):
        opened = vault.vault
        org = opened.root_org
        key = f"{org}/clash/one"
        await store.commit(Batch(puts=[Put(key, b"as it was", 0)]))
        revoked = Batch(puts=[Put(key, b"revoked", 1)])
        stands_on_it = Batch(puts=[Put(f"{org}/clash/two", b"made", 0)], checks=[Check(key, 1)])
        async with recorded(vault) as found:
            one = opened.journal.intend_with(Record(phase=Phase.INTENT, id="one"), org, revoked)
            two = opened.journal.intend_with(Record(phase=Phase.INTENT, id="two"), org, stands_on_it)
            assert (await one, await two) == (True, False)
        entries = await store.get([key, f"{org}/clash/two"])
        assert [entry.value for entry in entries] == [b"revoked", None]
        assert [record.id for record in found] == ["one", "two"]

    watched(scenario)
