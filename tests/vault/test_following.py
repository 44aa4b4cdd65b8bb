"""Following the journal: no record is lost or given twice, and nobody reads on who may not any more."""

import asyncio
import base64

import pytest

from keyhole.stores import open_store
from keyhole.testing import open_vault
from vault.world import Place, agent, child, org, play, policy_token, refusal


async def follow(vault, cursor, *, token=None, **asked):
    return (await vault.ask("read", "sys/audit-log", {"cursor": cursor, **asked}, token=token)).data


async def start(vault, token=None):
    return (await vault.ask("read", "sys/audit-log", {"limit": 1}, token=token)).data["cursor"]


def places(records):
    return [(record["writer"], record["sequence"]) for record in records]


def test_every_record_comes_once_whatever_the_size_of_the_answers():
    async def scenario(vault):
        cursor = await start(vault)
        for number in range(30):
            await vault.ask("update", f"secret/data/n{number}", {"data": {"a": "b"}})
        seen, answers = [], 0
        while len(seen) < 60:
            data = await follow(vault, cursor, limit=7)
            cursor, answers = data["cursor"], answers + 1
            assert len(data["records"]) <= 7
            seen += data["records"]
        assert len(set(places(seen))) == 60
        assert answers >= 9
        assert [r["path"] for r in seen if r["phase"] == "intent"] == [f"secret/data/n{n}" for n in range(30)]
        assert (await follow(vault, cursor))["records"] == []

    play(scenario)


def test_several_writers_are_followed_at_once_also_one_that_begins_later(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one:
            cursor = await start(one)
            async with place.open() as two:
                for number in range(20):
                    await (one, two)[number % 2].ask("update", f"secret/data/n{number}", {"data": {"a": "b"}})
                await two.vault.journal.drain()
                seen = []
                for _ in range(30):
                    data = await follow(one, cursor, limit=3)
                    cursor = data["cursor"]
                    seen += data["records"]
                assert len({record["writer"] for record in seen}) == 2
                assert len(set(places(seen))) == len(seen) == 40

    asyncio.run(main())


def test_from_the_beginning_all_writers_are_read_in_the_order_of_time(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            for number in range(220):  # more than a page of a writer, while the other one is at its beginning
                await one.ask("update", "secret/data/a", {"data": {"a": str(number)}})
                if number % 40 == 0:
                    await two.ask("update", "secret/data/b", {"data": {"a": "b"}})
            await two.vault.journal.drain()
            await follow(one, await start(one))
            seen, cursor = [], "beginning"
            until = (await one.ask("read", "sys/audit-log", {"limit": 1})).data["records"][0]["time"]
            while records := (data := await follow(one, cursor, whole="true", before=until))["records"]:
                seen, cursor = seen + records, data["cursor"]
            assert len(set(places(seen))) == len(seen)
            assert sum(record.get("path", "").startswith("secret/") for record in seen) == 2 * (220 + 6)
            assert {record["writer"] for record in seen} == {0, 1}
            times = [record["time"] for record in seen]
            assert times == sorted(times)
            assert sum(record.get("path") == "sys/audit-log" for record in seen) >= 4

    asyncio.run(main())


class Watched:
    """A store that counts the journal rows that were read of it, and says when somebody has looked at its heads."""

    def __init__(self, store):
        self._store = store
        self.rows = 0
        self.looked = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def heads(self):
        self.looked.set()
        return await self._store.heads()

    async def scan(self, writer, **options):
        found = await self._store.scan(writer, **options)
        self.rows += len(found)
        return found


def test_neither_following_nor_asking_for_the_latest_reads_the_whole_journal():
    async def main():
        store = Watched(await open_store("memory:", create=True))

        async def scenario(vault):
            for number in range(600):
                await vault.ask("update", f"secret/data/n{number % 7}", {"data": {"a": str(number)}})
            store.rows = 0
            cursor = await start(vault)
            assert store.rows <= 200
            store.rows = 0
            await vault.ask("update", "secret/data/last", {"data": {"a": "b"}})
            data = await follow(vault, cursor)
            assert [r["path"] for r in data["records"]] == ["secret/data/last"] * 2
            assert store.rows <= 10

        async with open_vault(store=store) as vault:
            await scenario(vault)

    asyncio.run(main())


def test_who_waits_is_answered_as_soon_as_there_is_a_record_and_sees_no_other_reader():
    async def scenario(vault):
        cursor = await start(vault)
        waiting = asyncio.create_task(follow(vault, cursor, wait="30s"))
        await start(vault)
        other = asyncio.create_task(follow(vault, cursor, wait="1s"))
        assert (await other)["records"] == []
        assert not waiting.done()
        await vault.ask("update", "secret/data/x", {"data": {"a": "b"}})
        data = await asyncio.wait_for(waiting, 20)
        assert {record["path"] for record in data["records"]} == {"secret/data/x"}

    play(scenario)


def test_a_refused_reader_is_seen_by_who_follows():
    async def scenario(vault):
        cursor = await start(vault)
        token = await agent(vault)
        assert (await refusal(vault.ask("read", "sys/audit-log", token=token))).code == "policy_denied"
        records = (await follow(vault, cursor))["records"]
        assert [r["result"] for r in records if r["path"] == "sys/audit-log"] == ["policy_denied"]

    play(scenario)


def test_an_org_follows_its_own_records_only():
    async def scenario(vault):
        acme = await org(vault, "acme")
        cursor = await start(vault, acme)
        await vault.ask("update", "secret/data/ours", {"data": {"a": "b"}})
        await vault.ask("update", "secret/data/theirs", {"data": {"a": "b"}}, token=acme)
        paths = {record["path"] for record in (await follow(vault, cursor, token=acme))["records"]}
        assert paths == {"secret/data/theirs"}

    play(scenario)


@pytest.mark.parametrize("how", ["token", "policy"])
def test_who_may_no_longer_read_gets_nothing_that_came_while_waiting(how):
    async def main():
        store = Watched(await open_store("memory:", create=True))
        async with open_vault(store=store) as vault:
            text = 'path "sys/audit-log" { capabilities = ["read", "sudo"] }'
            token = await policy_token(vault, text) if how == "policy" else await child(vault, policies=["root"])
            cursor = await start(vault, token)
            store.looked.clear()
            waiting = asyncio.create_task(refusal(follow(vault, cursor, token=token, wait="30s")))
            await store.looked.wait()
            if how == "policy":
                await vault.ask("delete", "sys/policies/acl/given")
            else:
                await vault.ask("update", "auth/token/revoke", {"token": token})
            error = await asyncio.wait_for(waiting, 20)
            assert error.code == ("policy_denied" if how == "policy" else "unauthenticated")

    asyncio.run(main())


@pytest.mark.parametrize("how", ["seal", "leave"])
def test_nobody_waits_for_a_vault_that_is_sealed_or_a_server_that_ends(how):
    async def scenario(vault):
        cursor = await start(vault)
        waiting = asyncio.create_task(follow(vault, cursor, wait="30s"))
        await start(vault)
        await vault.node.seal() if how == "seal" else vault.node.leave()
        assert (await asyncio.wait_for(waiting, 20))["records"] == []

    play(scenario)


def test_what_is_no_cursor_of_this_journal_is_refused():
    async def scenario(vault):
        ahead = base64.urlsafe_b64encode(b"1 0:999999").decode()
        for bad in ("x", "ü", "!!!", base64.urlsafe_b64encode(b"1 0:-1").decode(), "MiAwOjE=", "MSAwOjE6Mg==", ahead):
            error = await refusal(follow(vault, bad))
            assert error.code == "invalid_request", bad
            assert error.hint
        cursor = await start(vault)
        assert (await refusal(follow(vault, cursor, wait="soon"))).code == "invalid_request"

    play(scenario)


def test_nothing_is_lost_or_given_twice_while_several_processes_write(tmp_path):
    place = Place(tmp_path)

    async def write(vault, name):
        for number in range(25):
            await vault.ask("update", f"secret/data/{name}-{number}", {"data": {"a": "b"}})

    async def main():
        async with place.open() as one, place.open() as two, place.open() as reader:
            cursor = await start(reader)
            writing = asyncio.gather(*(write(vault, f"{n}{m}") for n, vault in enumerate((one, two)) for m in range(4)))
            seen = []
            while len(seen) < 400:
                data = await asyncio.wait_for(follow(reader, cursor, limit=9, wait="10s"), 30)
                assert data["records"]
                cursor = data["cursor"]
                seen += data["records"]
            await writing
            assert len(set(places(seen))) == len(seen) == 400
            ends = [record["id"] for record in seen if record["phase"] == "outcome"]
            assert len(set(ends)) == len(ends) == 200
            assert (await follow(reader, cursor))["records"] == []

    asyncio.run(main())
