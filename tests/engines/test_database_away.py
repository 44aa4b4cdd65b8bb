"""Databases that are away, swallow packets or let us in no more delay nobody else, and nothing of it is silent."""

import asyncio
import contextlib

import pytest

import database_server
import postgres_server
from database_gate import Gate
from engines.database_world import with_database
from keyhole.core.errors import KeyholeError
from vault.world import journal

users = database_server.users


@contextlib.contextmanager
def gates(count):
    """Ways to the same database, as if they were several."""
    made = [Gate() for _ in range(count)]
    try:
        yield made
    finally:
        for gate in made:
            gate.close()


async def through(world, number, gate, count):
    """Users made by way of a gate."""
    await world.config(f"db{number}", connection_url=gate.url)
    await world.role(f"r{number}", db_name=f"db{number}", default_ttl="1h")
    return {(await world.creds(f"r{number}"))[1] for _ in range(count)}


async def look_until_gone(names):
    async with asyncio.timeout(60):
        while names & users():  # noqa: ASYNC110 - nothing announces the end of a user
            await asyncio.sleep(0.02)


async def until_gone(world, names, *, step=0):
    """Wait, with so many seconds of the vault's own time at each look. How many of these went by."""
    passed = 0
    async with asyncio.timeout(60):
        while names & users():
            world.clock.advance(step)
            passed += step
            await world.sweep()
    return passed


def test_one_of_five_databases_swallows_packets_and_users_of_the_other_four_end_in_time():
    async def scenario(world):
        with gates(5) as ways:
            made = [await through(world, number, gate, 3) for number, gate in enumerate(ways)]
            await asyncio.to_thread(ways[0].swallow)
            world.vault.node.start_sweeper()
            world.clock.advance(3601)
            await look_until_gone(set().union(*made[1:]))
            assert made[0] <= users()
            ways[0].open()
            await until_gone(world, made[0], step=1)

    with_database(scenario)


def test_what_was_revoked_while_its_database_was_away_goes_when_that_is_back():
    async def scenario(world):
        with gates(1) as [way]:
            [name] = await through(world, 0, way, 1)
            way.shut()
            [lease] = (await world.vault.ask("list", "sys/leases/lookup/database/creds/r0")).data["keys"]
            lease_id = f"database/creds/r0/{lease}"
            world.vault.vault.expiry.background = True  # as in a server: nobody waits for the database
            await world.vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id})
            with pytest.raises(KeyholeError) as failure:
                await world.vault.ask("update", "sys/leases/revoke", {"lease_id": lease_id, "sync": True})
            assert failure.value.code == "target_away"
            assert name in users()
            way.open()
            assert await until_gone(world, {name}, step=1) <= 30

    with_database(scenario)


def test_a_lease_whose_database_lets_us_in_no_more_is_irrevocable_until_it_does():
    async def scenario(world):
        lease, name, _ = await world.creds()
        forced, other, _ = await world.creds()
        with postgres_server.superuser() as session:
            session.execute(f"ALTER ROLE {database_server.ADMIN} PASSWORD 'of somebody else'")
        world.clock.advance(3601)
        for _ in range(12):
            await world.sweep()
            world.clock.advance(13)
        found = (await world.vault.ask("read", "sys/leases", {"type": "irrevocable"})).data["leases"]
        assert {entry["lease_id"] for entry in found} == {lease.id, forced.id}
        assert all("password authentication failed" in entry["error"] for entry in found)
        assert (await world.vault.ask("read", "sys/leases/count", {"type": "irrevocable"})).data["lease_count"] == 2
        metrics = (await world.vault.ask("read", "sys/metrics", {"format": "prometheus"})).raw
        assert b'keyhole_leases_total{result="irrevocable"} 2' in metrics
        alarms = [r.result for _, r in await journal(world.vault) if r.operation == "alarm"]
        assert any("could not be revoked 6 times" in text for text in alarms)
        await world.vault.ask("update", f"sys/leases/revoke-force/{forced.id}")
        said = [r.result for _, r in await journal(world.vault) if r.lease == forced.id and r.operation != "read"]
        assert said[-1] == "forgotten: target_away"
        assert {name, other} <= users()
        database_server.reset_root()
        await world.config()
        for _ in range(3):
            world.clock.advance(13)
            await world.sweep()
        assert name not in users()
        assert other in users()
        with postgres_server.superuser() as session:
            session.execute(f'DROP OWNED BY "{other}"')
            session.execute(f'DROP ROLE "{other}"')

    with_database(scenario)
