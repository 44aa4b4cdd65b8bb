"""What workers are made of: messages, shared counts, ports, figures, and the order in which keys and seals count."""

import asyncio
import contextlib
import errno
import os
import socket

import pytest

from keyhole.auth.guesses import Guesses
from keyhole.config import Config, load
from keyhole.core.errors import (
    InternalError,
    InvalidRequest,
    PolicyDenied,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
)
from keyhole.core.tally import LocalTallies
from keyhole.faces.api.app import Api
from keyhole.vault.mounts import UnsupportedOperation
from keyhole.vault.node import Node
from keyhole.workers.channel import Channel
from keyhole.workers.crew import Captured, Crew, merged
from keyhole.workers.parent import Parent, require_possible
from keyhole.workers.parent import _Slot as Slot
from keyhole.workers.ports import reserve
from keyhole.workers.tallies import SharedTallies, new_memory
from keyhole.workers.worker import pack, unpack


async def _nothing(_kind, _data):
    return {}


@contextlib.asynccontextmanager
async def _pair(serve):
    """Who asks, and who serves."""
    ours, theirs = (
        Channel(sock, each, print) for sock, each in zip(socket.socketpair(), (_nothing, serve), strict=True)
    )
    await ours.open()
    await theirs.open()
    running = [asyncio.create_task(each.run()) for each in (ours, theirs)]
    try:
        yield ours, theirs, running[1]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def test_bytes_come_as_they_went_and_each_answer_to_its_question():
    async def serve(kind, data):
        await asyncio.sleep(0 if kind == "second" else 0.01)
        return {"kind": kind, **data}

    async def main():
        async with _pair(serve) as (ours, _, _):
            key = bytes(range(256))
            said = await asyncio.gather(ours.ask("first", key=key), ours.ask("second", words=["a", {"b": None}]))
        assert said == [{"kind": "first", "key": key}, {"kind": "second", "words": ["a", {"b": None}]}]

    asyncio.run(main())


def test_each_of_several_who_wait_gets_its_answer_in_whatever_order_they_come():
    async def main():
        later = [asyncio.Event() for _ in range(3)]

        async def serve(_kind, data):
            await later[data["number"]].wait()
            return data

        async with _pair(serve) as (ours, _, _):
            for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
                asked = [asyncio.create_task(ours.ask("any", number=number)) for number in range(3)]
                for number in order:
                    later[number].set()
                    async with asyncio.timeout(60):
                        assert await asked[number] == {"number": number}
                    later[number].clear()
            assert not ours._waiting

    asyncio.run(main())


def test_a_refusal_is_raised_where_it_was_asked_and_a_fault_without_its_text(capsys):
    async def serve(kind, _data):
        if kind == "fault":
            raise ValueError("the-value-of-the-key")
        error = UnsupportedOperation("no such operation", "ask otherwise")
        error.headers = {"x": "y"}
        raise error

    async def main():
        async with _pair(serve) as (ours, _, _):
            with pytest.raises(UnsupportedOperation) as refused:
                await ours.ask("refusal")
            assert (refused.value.status, refused.value.hint) == (405, "ask otherwise")
            assert refused.value.headers == {"x": "y"}
            with pytest.raises(Exception, match="internal error") as fault:
                await ours.ask("fault")
            assert "the-value" not in str(fault.value)

    asyncio.run(main())
    assert "the-value" not in capsys.readouterr().out


def test_whoever_waits_is_told_that_the_other_end_is_gone():
    async def serve(_kind, _data):
        await asyncio.get_running_loop().create_future()

    async def main():
        async with _pair(serve) as (ours, theirs, running):
            asked = asyncio.create_task(ours.ask("anything"))
            await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(StoreUnavailable):
                await asked
            with pytest.raises(StoreUnavailable):
                await theirs.ask("anything")

    asyncio.run(main())


@pytest.fixture
def shared():
    """Makes the counts of one of two processes."""
    descriptor, key = new_memory(), os.urandom(32)
    yield lambda index: SharedTallies(descriptor, key, index, 2)
    os.close(descriptor)


@pytest.fixture(params=["local", "shared"])
def tallies(request):
    return LocalTallies(100) if request.param == "local" else request.getfixturevalue("shared")(0)


def test_a_cell_is_zeros_until_it_is_changed_and_again_when_it_is_forgotten(tallies):
    assert tuple(tallies.read("names", "a")) == (0, 0, 0)
    with tallies.held("names", "a") as cell:
        cell[:] = 1.5, -2, 3
    assert tuple(tallies.read("names", "a")) == (1.5, -2, 3)
    assert tuple(tallies.read("addresses", "a")) == (0, 0, 0)
    tallies.forget("names", "a")
    assert tuple(tallies.read("names", "a")) == (0, 0, 0)


def test_what_is_under_way_is_bounded_and_given_back(tallies):
    assert [tallies.enter("a", 2) for _ in range(3)] == [True, True, False]
    assert tallies.enter("b", 2)
    tallies.leave("a")
    assert [tallies.enter("a", 2) for _ in range(2)] == [True, False]


def test_processes_count_together_and_what_one_had_under_way_ends_with_it(shared):
    first, second = shared(0), shared(1)
    with first.held("rates", "a") as cell:
        cell[0] = 7
    assert second.read("rates", "a")[0] == 7
    assert [first.enter("a", 3), second.enter("a", 3), first.enter("a", 3), second.enter("a", 3)] == [True] * 3 + [
        False
    ]
    shared(0)  # the one that is started in its place
    assert [second.enter("a", 3) for _ in range(3)] == [True, True, False]


def test_what_is_under_way_is_never_forgotten_for_something_else(shared):
    counts = shared(0)
    begun = [key for key in (f"key {number}" for number in range(20_000)) if counts.enter(key, 1)]
    assert len(begun) > 10_000
    assert not any(counts.enter(key, 1) for key in begun)  # each has the one that it may have
    for key in begun:
        counts.leave(key)
    assert all(counts.enter(f"key {number}", 1) for number in range(2000))


def test_memory_is_bounded_and_what_was_used_last_stays(shared):
    counts = shared(0)
    for number in range(3000):
        with counts.held("names", f"name {number}") as cell:
            cell[0] = number
        with counts.held("names", "kept") as cell:
            cell[1] += 1
    assert counts.read("names", "kept")[1] == 3000
    assert counts.read("names", "name 2999")[0] == 2999


def test_guesses_in_two_processes_lock_one_name(shared):
    guesses = [Guesses(), Guesses()]
    for index, each in enumerate(guesses):
        each.tallies = shared(index)
    for number in range(5):
        guesses[number % 2].check_name("root/userpass", "alice", 1000.0)
        guesses[number % 2].fail_name("root/userpass", "alice", 1000.0)
    for each in guesses:
        with pytest.raises(PolicyDenied, match="denied"):
            each.check_name("root/userpass", "alice", 1001.0)
        each.check_name("root/userpass", "bob", 1001.0)
    for number in range(60):
        guesses[number % 2].fail_address("192.0.2.1", 1000.0)
    for each in guesses:
        with pytest.raises(RateLimited):
            each.check_address("192.0.2.1", 1000.0)
    guesses[0].forgive("root/userpass", "alice")
    guesses[1].check_name("root/userpass", "alice", 1001.0)


def test_figures_add_up_by_family():
    head = "# HELP keyhole_sealed Is it?\n# TYPE keyhole_sealed gauge\nkeyhole_sealed {}\n# TYPE a_total counter\n"
    first = head.format(0) + 'a_total{x="1"} 3\n# TYPE b counter\nb 1.5\n'
    second = head.format(1) + 'a_total{x="2"} 4\na_total{x="1"} 1\n'
    assert merged([first, second]).splitlines() == [
        "# HELP keyhole_sealed Is it?",
        "# TYPE keyhole_sealed gauge",
        "keyhole_sealed 1",
        "# TYPE a_total counter",
        'a_total{x="1"} 4',
        'a_total{x="2"} 4',
        "# TYPE b counter",
        "b 1.5",
    ]


def test_a_port_is_reserved_for_all_workers_and_nobody_else():
    config = Config(listen="127.0.0.1:0", proxy_listen="[::1]:0", sql_listen=("postgres://127.0.0.1:0",))
    with contextlib.ExitStack() as stack:
        found = reserve(config, stack)
        ports = [int(each.rpartition(":")[2]) for each in (found.listen, found.proxy_listen, *found.sql_listen)]
        assert all(ports)
        assert found.proxy_listen.startswith("[::1]:")
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", ports[0]))
            worker.listen()
            with pytest.raises(InvalidRequest, match="cannot listen on"):
                reserve(found, contextlib.ExitStack())


def test_settings_come_to_a_worker_as_they_are(monkeypatch):
    config = Config(vault="sqlite:/x", resolve=("a:1.2.3.4",), workers=3, drain=2.5)
    assert unpack(pack(config)) == config
    assert (load(flags={"workers": "auto"}).workers, load(flags={"workers": "4"}).workers) == (0, 4)
    monkeypatch.setenv("KEYHOLE_WORKERS", "2")
    assert load().workers == 2
    with pytest.raises(InvalidRequest, match="workers is a number"):
        load(flags={"workers": "65"})
    with pytest.raises(InvalidRequest, match="workers: '0' is not a whole number from 1, or auto"):
        load(flags={"workers": "0"})


@pytest.mark.parametrize(
    "line", ["workers = true", "workers = 0", "workers = 2.5", "connections = true", "drain = false"]
)
def test_what_only_python_takes_for_a_number_is_none_in_the_file_of_settings(line, tmp_path):
    path = tmp_path / "keyhole.toml"
    path.write_text(line)
    with pytest.raises(InvalidRequest, match=f"{line.split()[0]}: .* is not a (whole )?number"):
        load(str(path))


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("WORKERS", "many", "a whole number from 1, or auto"),
        ("HTTP2_STREAMS", "many", "a whole number"),
    ],
)
def test_a_setting_of_another_kind_is_refused_with_the_kind_it_takes(monkeypatch, variable, value, wanted):
    monkeypatch.setenv(f"KEYHOLE_{variable}", value)
    with pytest.raises(InvalidRequest, match=f"{variable.lower()}: '{value}' is not {wanted}"):
        load()


def test_a_vault_in_memory_and_other_systems_have_one_process(monkeypatch):
    with pytest.raises(InvalidRequest, match="in memory"):
        require_possible(Config(), dev=True)
    with pytest.raises(InvalidRequest, match="in memory"):
        require_possible(Config(vault="memory:"), dev=False)
    require_possible(Config(vault="sqlite:/x"), dev=False)
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(InvalidRequest, match="only Linux"):
        require_possible(Config(vault="sqlite:/x"), dev=False)


class _Slot:
    """A worker that does what it is asked, or does not."""

    def __init__(self, index, *, answers=True):
        self.index, self.answers = index, answers
        self.told = self.ready = True
        self.heard, self.killed = [], False
        self.channel = self

    async def ask(self, kind, /, **data):
        self.heard.append((kind, data))
        if not self.answers:
            raise StoreUnavailable("gone")
        return {"text": str(self.index)}

    def kill(self):
        self.killed = True

    async def ended(self):
        return 0


def _parent(*slots):
    parent = Parent(Config(vault="sqlite:/x"), passphrase=None, await_init=False)
    parent._slots = list(slots)
    return parent


def test_a_key_that_was_told_before_the_vault_was_sealed_opens_nothing():
    async def main():
        slots = [_Slot(0), _Slot(1)]
        parent = _parent(*slots)
        await parent._serve(slots[0], "root", {"root": b"k" * 32, "epoch": 0})
        assert slots[1].heard == [("root", {"root": b"k" * 32})]
        assert (await parent._serve(slots[1], "seal", {}))["epoch"] == 1
        assert slots[0].heard == [("seal", {"epoch": 1})]
        await parent._serve(slots[0], "root", {"root": b"k" * 32, "epoch": 0})  # it was on its way
        assert parent._root is None
        assert len(slots[1].heard) == 1
        await parent._serve(slots[0], "root", {"root": b"n" * 32, "epoch": 1})
        assert parent._root == b"n" * 32

    asyncio.run(main())


def test_a_worker_that_does_not_seal_is_killed_before_anybody_is_told_that_the_vault_is_sealed():
    async def main():
        slots = [_Slot(0), _Slot(1, answers=False), _Slot(2)]
        await _parent(*slots)._serve(slots[0], "seal", {})
        assert [slot.killed for slot in slots] == [False, True, False]

    asyncio.run(main())


@pytest.mark.parametrize("first", [True, False])
def test_a_worker_that_the_system_does_not_start_is_an_error_at_first_and_tried_again_later(first, monkeypatch):
    tried = []
    parent = _parent()

    async def start(*_arguments, **_options):
        tried.append(1)
        parent._stopping = len(tried) == 3
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async def main():
        slot = Slot(0, None)
        if not first:
            slot.started.set_result({})
        await parent._keep(slot)
        return await slot.started

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr("keyhole.workers.parent._SOON", 0)
    if first:
        with pytest.raises(InternalError, match="temporarily unavailable"):
            asyncio.run(main())
    else:
        assert asyncio.run(main()) == {}
    assert len(tried) == (1 if first else 3)


def test_a_server_that_is_told_to_stop_waits_for_no_worker_that_was_to_be_started_again(monkeypatch):
    async def main():
        parent = _parent()
        tried = asyncio.Event()

        async def start(*_arguments, **_options):
            tried.set()
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        monkeypatch.setattr("keyhole.workers.parent._SOON", 3600)
        slot = Slot(0, None)
        slot.started.set_result({})
        keeping = asyncio.create_task(parent._keep(slot))
        await tried.wait()
        await asyncio.wait_for(parent._stop([keeping]), 60)
        assert not keeping.cancelled()

    asyncio.run(main())


def test_figures_do_not_wait_for_a_worker_that_stands_still(monkeypatch):
    async def main():
        slots = [_Slot(0), _Slot(1), _Slot(2)]
        still = asyncio.Event()

        async def ask(_kind, /, **_data):
            await still.wait()

        slots[2].ask = ask
        found = await asyncio.wait_for(_parent(*slots)._serve(slots[0], "gather", {"what": "figures"}), 60)
        assert found == {"answers": [{"text": "1"}]}

    monkeypatch.setattr("keyhole.workers.parent._ANSWERING", 0.01)
    asyncio.run(main())


def test_a_worker_is_told_nothing_before_it_has_closed_itself_to_others():
    async def main():
        slot = _Slot(0)
        slot.told, slot.started, hardened = False, asyncio.get_running_loop().create_future(), asyncio.Event()
        slot.hidden = hardened.wait
        parent = _parent(slot)
        booting = asyncio.create_task(parent._boot(slot))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (slot.heard, slot.told) == ([], False)
        hardened.set()
        await booting
        assert [kind for kind, _ in slot.heard] == ["boot"]

    asyncio.run(main())


def test_ceremonies_are_held_by_the_first_that_serves_and_figures_come_from_all_that_do():
    async def main():
        slots = [_Slot(0), _Slot(1), _Slot(2, answers=False)]
        parent = _parent(*slots)
        slots[0].ready = False
        await parent._serve(slots[2], "ceremony", {"path": "sys/unseal"})
        assert slots[1].heard == [("ceremony", {"path": "sys/unseal"})]
        slots[0].ready = True
        assert await parent._serve(slots[1], "gather", {"what": "figures"}) == {"answers": [{"text": "0"}]}

    asyncio.run(main())


def test_a_capture_that_a_new_worker_cannot_take_part_in_keeps_it_from_nothing():
    begun = []

    async def ask(_kind, **_data):
        return {"answers": [{"on": [{"id": "gone"}, {"id": "on"}]}]}

    async def told(data):
        if data["id"] == "gone":
            raise Unauthenticated("the token is not valid", "its org does not exist any more")
        begun.append(data)
        return {}

    captures = Captured(1, ask)
    captures.told = told
    asyncio.run(captures.catch_up())
    assert begun == [{"op": "begin", "id": "on"}]


def test_a_cancel_request_is_for_whichever_worker_has_the_session():
    class Sessions:
        elsewhere = None

        async def cancel(self, token, key, remote, *, here):
            assert (token, key, remote, here) == (None, b"12345678", "192.0.2.1", True)

    async def main():
        asked, answers = [], [{}]

        async def ask(kind, **data):
            asked.append((kind, data["what"]))
            return {"answers": answers}

        crew = Crew(0, 2, None, LocalTallies(1), ask, 0)
        crew.join_sessions(sessions := Sessions())
        crew.join(Api(Node(None)), Node(None))
        assert await crew.serve("cancel", {"token": None, "key": b"12345678", "remote": "192.0.2.1"}) == {}
        await sessions.elsewhere(None, b"12345678", "192.0.2.1")
        answers.clear()
        with pytest.raises(PolicyDenied, match="names no session"):
            await sessions.elsewhere(None, b"12345678", "192.0.2.1")
        assert asked == [("gather", "cancel")] * 2

    asyncio.run(main())
