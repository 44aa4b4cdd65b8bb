"""Work of engines that is due: one piece that hangs delays no other's, and is cut off after its time."""

import asyncio

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.request import Operation
from keyhole.engines import Engine, Route
from keyhole.testing import FrozenClock
from keyhole.vault.mounts import Mount
from keyhole.vault.sys.chores import Chores
from keyhole.vault.sys.sweep import Sweeper
from vault.world import journal, play


class Works:
    """A mount whose entries are due at once; ``done`` are the names of those whose work was done."""

    def __init__(self, vault, path):
        self.done, self.begun = [], []
        self.hanging = set()
        self.refusing = set()
        routes = (Route("{name}", {Operation.CREATE: self.write}, help="Makes something that is due."),)
        engine = Engine(path, routes, due=self.due)
        inner = vault.vault
        inner.fix_mounts([*inner.tables.fixed, Mount(f"{path}/", path, engine, path)])

    async def write(self, context, call):
        await context.storage.change([(call.params["name"], b"", 0, context.now)])

    async def due(self, context, path):
        self.begun.append(path)
        if path in self.hanging:
            await asyncio.Event().wait()
        if path in self.refusing:
            raise UpstreamUnreachable("it does not answer")
        await context.storage.change((), [(path, (await context.storage.get_one(path)).revision)])
        self.done.append(path)
        return path


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


def test_work_that_hangs_delays_neither_its_mount_nor_others_and_is_cut_off():
    async def scenario(vault):
        one, other = Works(vault, "one"), Works(vault, "other")
        one.hanging = {"hangs"}
        sweeper = Sweeper(vault.vault)
        for name in ("hangs", "a", "b"):
            await vault.ask("update", f"one/{name}")
            await vault.ask("update", f"other/{name}")
        await sweeper.sweep()
        await until(lambda: sorted(one.done) == ["a", "b"] and len(other.done) == 3)
        await sweeper.sweep()
        assert one.begun.count("hangs") == 1
        [hanging] = sweeper._chores._running.values()
        hanging.cancel()
        await vault.vault.expiry.drain()
        sweeper._chores = Chores(vault.vault, seconds=0.05)
        await sweeper.sweep()
        await vault.vault.expiry.drain()
        said = [(r.path, r.result) for _, r in await journal(vault) if r.operation == "due"]
        assert ("one/", "upstream_timeout") in said
        assert said.count(("one/a", "ok")) == 1
        one.hanging = set()
        sweeper._chores = Chores(vault.vault)
        await sweeper.sweep()
        await vault.vault.expiry.drain()
        assert "hangs" in one.done

    play(scenario, clock=FrozenClock())


def test_a_mount_has_a_bounded_number_of_pieces_under_way_and_comes_to_all_of_them():
    async def scenario(vault):
        works = Works(vault, "one")
        works.hanging = {"h1", "h2"}
        works.refusing = {"refused"}
        sweeper = Sweeper(vault.vault)
        sweeper._chores = Chores(vault.vault, jobs=2, seconds=0.05)
        for name in ("h1", "h2", "refused", "x", "y"):
            await vault.ask("update", f"one/{name}")
        await sweeper.sweep()
        await asyncio.sleep(0)
        assert len(works.begun) <= 2
        async with asyncio.timeout(60):
            while not {"h1", "h2", "x", "y"}.issubset(works.done):
                await sweeper.sweep()
                await vault.vault.expiry.drain()
                works.hanging.clear()

    play(scenario, clock=FrozenClock())
