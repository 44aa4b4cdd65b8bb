"""The journal: durable before anything is released, one record of each thing, and honest about what it cannot hold."""

import asyncio
import json
import random
import time

import pytest

from keyhole.core.errors import AuditUnavailable, KeyholeError, StoreUnavailable
from keyhole.core.record import Phase
from keyhole.stores import open_store
from keyhole.testing import FrozenClock, MemorySeal, open_vault
from vault.world import CANARY, Place, agent, child, journal, org, play, recorded, refusal, rows, stripe, use


class Gate:
    """A store whose journal commits can be held or made to fail."""

    def __init__(self, store):
        self._store = store
        self.open = asyncio.Event()
        self.open.set()
        self.fault = None
        self.commits = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, batch):
        if batch.appends:
            await self.open.wait()
            if self.fault is not None:
                raise self.fault
            self.commits += 1
        await self._store.commit(batch)


def gated(scenario):
    async def main():
        gate = Gate(await open_store("memory:", create=True))
        async with open_vault(store=gate) as vault:
            await stripe(vault)
            await vault.vault.journal.drain()
            return await scenario(vault, gate)

    return asyncio.run(main())


@pytest.mark.parametrize("operation", ["read", "use"])
def test_a_secret_is_released_only_after_its_intent_is_durable(operation):
    async def scenario(vault, gate):
        token = await agent(vault, services=["stripe"])
        await vault.vault.journal.drain()
        gate.open.clear()
        asked = (
            use(vault, "services/stripe", token)
            if operation == "use"
            else vault.ask("read", "secret/data/stripe/api-key")
        )
        task = asyncio.create_task(asked)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        gate.open.set()
        reply = await task
        assert (reply.lent or reply.data["data"]) is not None

    gated(scenario)


@pytest.mark.parametrize("operation", ["read", "use", "update", "list"])
def test_nothing_is_released_or_changed_while_the_journal_cannot_be_written_and_all_goes_on_after(operation):
    async def scenario(vault, gate):
        token = await agent(vault, services=["stripe"])
        await vault.vault.journal.drain()
        path = {"read": "secret/data/stripe/api-key", "list": "secret/metadata", "update": "secret/data/new"}

        async def ask():
            if operation == "use":
                return await use(vault, "services/stripe", token)
            return await vault.ask(operation, path[operation], {"data": {"a": 1}} if operation == "update" else {})

        gate.fault = StoreUnavailable("the disk of the store is full", "free some space")
        errors = await asyncio.gather(*(refusal(ask()) for _ in range(20)))
        assert all(isinstance(error, AuditUnavailable) for error in errors), errors
        assert len({id(error) for error in errors}) == len(errors)  # each is of one request
        assert {error.status for error in errors} == {503}
        assert "disk" in str(errors[0])
        gate.fault = None
        assert (await refusal(vault.ask("read", "secret/data/new"))).code == "not_found"
        assert await ask()
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    gated(scenario)


def test_a_refusal_that_cannot_be_recorded_is_refused_all_the_same():
    async def scenario(vault, gate):
        token = await agent(vault)
        await vault.vault.journal.drain()
        gate.fault = StoreUnavailable("gone")
        for credential in (token, "unknown"):
            error = await refusal(vault.ask("read", "secret/data/stripe/api-key", token=credential))
            assert isinstance(error, AuditUnavailable)

    gated(scenario)


def test_outcomes_that_could_not_be_written_are_written_later():
    async def scenario(vault, gate):
        before = len(await rows(vault))
        reply = await vault.ask("read", "secret/data/stripe/api-key")
        gate.fault = StoreUnavailable("gone")
        await vault.vault.journal.drain()
        gate.fault = None
        records = [record for _, record in (await journal(vault))[before:]]
        assert [(r.phase, r.id) for r in records] == [
            (Phase.INTENT, reply.request_id),
            (Phase.OUTCOME, reply.request_id),
        ]

    gated(scenario)


def test_requests_that_wait_together_share_commits():
    async def scenario(vault, gate):
        gate.open.clear()
        first = asyncio.create_task(vault.ask("read", "secret/data/stripe/api-key"))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(vault.ask("read", "secret/data/stripe/api-key")) for _ in range(60)]
        for _ in range(100):
            await asyncio.sleep(0)
        before = gate.commits
        gate.open.set()
        await asyncio.gather(first, *tasks)
        # What came while another commit was under way is written in one.
        assert gate.commits - before <= 3

    gated(scenario)


def test_an_outcome_is_durable_soon_without_being_asked_for():
    async def scenario(vault, gate):
        loop = asyncio.get_running_loop()
        before = gate.commits
        await vault.ask("read", "secret/data/stripe/api-key")
        asked = loop.time()
        while gate.commits < before + 2:
            await asyncio.sleep(0.002)
            assert loop.time() < asked + 5, "it is to be there within 100 ms"

    gated(scenario)


def test_closing_does_not_hang_and_leaves_nothing_running_when_the_medium_is_gone():
    async def main():
        gate = Gate(await open_store("memory:", create=True))
        async with asyncio.timeout(20), open_vault(store=gate) as vault:
            await vault.ask("update", "secret/data/x", {"data": {}})
            gate.fault = StoreUnavailable("gone")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_every_action_of_a_random_run_is_recorded_once_with_its_caller_and_without_a_value():
    rng = random.Random(20)

    async def scenario(vault):
        await stripe(vault)
        acme = await org(vault, "acme")
        callers = {
            "root": ("user/root", ""),
            await agent(vault, "one", services=["stripe"]): ("agent/one", ""),
            await agent(vault, "two", scope="proxy"): ("agent/two", ""),
            await child(vault, policies=["default"], display_name="bob"): ("token/bob", ""),
            acme: ("user/admin", acme.rpartition(".")[2]),
            "nobody": ("", ""),
        }
        actions = [
            ("update", "secret/data/{n}", {"data": {"value": CANARY}}),
            ("read", "secret/data/{n}", {}),
            ("patch", "secret/data/{n}", {"data": {"more": CANARY}}),
            ("delete", "secret/data/{n}", {}),
            ("list", "secret/metadata", {}),
            ("update", "cubbyhole/{n}", {"value": CANARY}),
            ("read", "cubbyhole/{n}", {}),
            ("read", "auth/token/lookup-self", {}),
            ("use", "services/stripe", {}),
            ("read", "no/where", {}),
            ("update", "secret/data/{n}", {"data": CANARY}),
        ]
        expected = []
        before = len(await rows(vault))
        for _ in range(500):
            token, (name, org_id) = rng.choice(list(callers.items()))
            operation, path, data = rng.choice(actions)
            path = path.replace("{n}", f"s{rng.randrange(6)}")
            try:
                reply = await (
                    use(vault, path, token) if operation == "use" else vault.ask(operation, path, data, token=token)
                )
                if operation == "use":
                    state, _ = await vault.vault.authenticate(token.encode())
                    vault.vault.conclude(state, reply.data["record"], "ok")
                expected.append((reply.request_id, name, org_id or vault.vault.root_org, "ok"))
            except KeyholeError as error:
                expected.append((error.request_id, name, org_id or vault.vault.root_org, error.code))
        found = (await journal(vault))[before:]
        by_id = {}
        for partition, record in found:
            by_id.setdefault(record.id, []).append((partition, record))
            assert CANARY not in json.dumps(record.as_data())
        assert set(by_id) == {id_ for id_, *_ in expected}
        for id_, name, partition, result in expected:
            phases = [record.phase for _, record in by_id[id_]]
            assert phases in ([Phase.INTENT, Phase.OUTCOME], [Phase.REFUSED]), (id_, phases)
            assert {(p, r.caller) for p, r in by_id[id_]} == {(partition, name)}
            assert by_id[id_][-1][1].result == result
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    play(scenario)


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        'x","result":"ok',
        "\x1b[31mred",
        "a\r\n\r\n",
        "\u202egnp",
        "x" * 10**6,
        "'; --",
        "{{x}}",
        "é" * 300,
        "\x00",
    ],
)
def test_odd_names_make_one_readable_record_each(text):
    async def scenario(vault):
        token = await agent(vault)
        for credential in (vault.token, token):
            for path in (f"secret/data/{text}", text, f"agents/{text}"):
                async with recorded(vault) as records:
                    error = await refusal(vault.ask("read", path, token=credential))
                assert error is not None
                assert len([r for r in records if r.phase is not Phase.OUTCOME]) == 1
                for record in records:
                    line = record.encode()
                    assert b"\n" not in line
                    assert len(line) < 8000
                    assert json.loads(line)["result" if "result" in json.loads(line) else "phase"] != "ok"
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    play(scenario)


def test_a_clock_that_was_set_back_is_flagged_and_the_order_holds(tmp_path, monkeypatch):
    place = Place(tmp_path)

    async def write(vault):
        await vault.ask("update", "secret/data/x", {"data": {}})
        return (await vault.ask("read", "sys/audit-log/verify")).data

    assert place.play(write)["anomalies"] == []
    real = time.time
    monkeypatch.setattr("keyhole.stores.sqlite.time.time", lambda: real() - 86_400)
    after = place.play(write)
    assert after["valid"]
    assert [a["anomaly"] for a in after["anomalies"]] == ["the clock went backwards"]
    monkeypatch.undo()

    async def look(vault):
        found = [r for _, r in await journal(vault)]
        assert any(r.phase is Phase.EVENT and r.operation == "clock" for r in found)
        sequences = [row.sequence for row in await rows(vault) if row.writer == 0]
        assert sequences == list(range(1, len(sequences) + 1))
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    place.play(look)


def test_a_small_step_back_is_waited_out(tmp_path, monkeypatch):
    place = Place(tmp_path)

    async def write(vault):
        await vault.ask("update", "secret/data/x", {"data": {}})
        return (await vault.ask("read", "sys/audit-log/verify")).data

    place.play(write)
    real = time.time
    monkeypatch.setattr("keyhole.stores.sqlite.time.time", lambda: real() - 300)
    assert place.play(write)["anomalies"] == []


def test_two_nodes_write_two_chains_and_both_verify(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            await asyncio.gather(
                *(node.ask("update", f"secret/data/{n}", {"data": {}}) for n in range(20) for node in (one, two))
            )
            heads = await one.node.store.heads()
            assert set(heads) == {0, 1}
            for node in (one, two):
                verified = (await node.ask("read", "sys/audit-log/verify")).data
                assert (verified["valid"], verified["problems"]) == (True, [])
        async with place.open() as three:
            await three.ask("read", "sys/mounts")
            await three.vault.journal.drain()
            assert set(await three.node.store.heads()) == {0, 1}
            assert (await three.ask("read", "sys/audit-log/verify")).data["valid"]

    asyncio.run(main())


def test_a_writer_that_lost_its_slot_goes_on_in_another_chain():
    async def main():
        store = await open_store("memory:", create=True)
        clocks = [FrozenClock(), FrozenClock()]
        seal = MemorySeal()
        async with open_vault(store=store, seal=seal, clock=clocks[0]) as one:
            await one.ask("update", "secret/data/x", {"data": {}})
            await one.vault.journal.drain()
            clocks[1].advance(0)
            async with open_vault(store=_Kept(store), seal=seal, clock=clocks[1]) as two:
                clocks[1].advance(1000)  # the lease of the first has ended, and it does not know
                await two.ask("update", "secret/data/y", {"data": {}})
                await two.vault.journal.drain()
                assert set(await store.heads()) == {0}
                length = (await store.heads())[0]
                await one.ask("update", "secret/data/z", {"data": {}})
                await one.vault.journal.drain()
                assert set(await store.heads()) == {0, 1}
                assert (await store.heads())[0] == length
                assert (await one.ask("read", "sys/audit-log/verify")).data["valid"]

    asyncio.run(main())


class _Kept:
    """A store that is closed by its first owner."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def close(self):
        pass


def test_queries_find_by_secret_agent_service_run_and_result():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"], workflow="nightly", run="r1", step="s1")
        await use(vault, "services/stripe", token)
        await refusal(vault.ask("read", "secret/data/stripe/api-key", token=token))

        async def ask(**filters):
            return (await vault.ask("read", "sys/audit-log", filters)).data["records"]

        assert {r["caller"] for r in await ask(agent="coder")} == {"agent/coder"}
        assert [r["operation"] for r in await ask(service="stripe")] == ["use"]
        assert {r["run"] for r in await ask(run="r1")} == {"r1"}
        found = await ask(secret="stripe/api-key", agent="coder")
        assert [(r["operation"], r["phase"]) for r in found] == [("use", "intent"), ("read", "refused")]
        assert {r["result"] for r in await ask(result="policy_denied")} == {"policy_denied"}
        assert len(await ask(limit="1")) == 1
        assert await ask(after="2099-01-01") == []
        assert await ask(before="2001-01-01") == []
        for bad in ({"limit": "0"}, {"limit": "9" * 5000}, {"nonsense": "x"}, {"after": "soon"}):
            assert (await refusal(ask(**bad))).code == "invalid_request"

    play(scenario)
