"""Hostile names of roles, of who asks, of static users and in templates: nothing but the role's own statements runs."""

import json
from pathlib import Path

import database_server
import postgres_server
from engines.database_world import with_database
from keyhole.core.lease import Lease
from keyhole.engines.database.names import name_of
from keyhole.engines.database.plugins import mongodb, mysql, postgresql
from vault.world import child, refusal

HOSTILE = [
    json.loads(line)["name"]
    for line in (Path(__file__).resolve().parents[1] / "data" / "db" / "role_names.jsonl").read_text().splitlines()
]


LEASE = Lease(
    id="", issued=1.0, expires=2.0, ttl=1, default_ttl=1, max_ttl=1, renewable=True, internal={}, mount="database"
)


def everything():
    """What a statement could have changed: roles with their rights, and relations."""
    with postgres_server.superuser() as session:
        roles = session.execute("SELECT rolname, rolsuper, rolcanlogin FROM pg_roles").fetchall()
        relations = session.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        members = session.execute("SELECT roleid::text, member::text FROM pg_auth_members").fetchall()
        return {*roles, *relations.fetchall(), *members}


async def changes_nothing(asked):
    """The refusal of what was asked, which has changed nothing; ``None`` when it was not refused."""
    before = everything()
    error = await refusal(asked)
    assert error is None or error.status in {400, 404, 405, 500}, error
    assert everything() == before
    return error


async def makes_one_user(world, role="r", *, token=None):
    """Have a user made and taken back, which changes nothing else."""
    before = everything()
    lease, name, password = await world.creds(role, token=token)
    assert everything() == before | {(name, False, True)}
    assert len(name.encode()) <= 63
    assert database_server.may_log_in(name, password)
    await world.revoke(lease)
    assert everything() == before


def test_a_hostile_name_of_a_role():
    async def scenario(world):
        made = []
        for hostile in HOSTILE:
            if await changes_nothing(world.role(hostile)) is None:
                await makes_one_user(world, hostile)
                made.append(hostile)
        assert {"postgres", "PUBLIC", "pg_signal_backend"} <= set(made)
        assert not set(made) & {"", "{{name}}", "a\nb", "a'; DROP TABLE x; --"}

    with_database(scenario)


def test_a_hostile_name_of_who_asks():
    async def scenario(world):
        for hostile in HOSTILE:
            token = await child(world.vault, policies=["root"], display_name=hostile)
            await makes_one_user(world, token=token)

    with_database(scenario)


def test_a_hostile_template():
    async def scenario(world):
        for hostile in HOSTILE:
            error = await changes_nothing(world.config(username_template=hostile + "{{ random 20 }}"))
            if error is None and len(hostile) < 44 and not hostile.startswith("pg_"):
                await makes_one_user(world)
            elif error is None:  # which PostgreSQL would cut off, or keeps for itself
                error = await changes_nothing(world.creds())
                assert error.status in {400, 500}
                await world.sweep()

    with_database(scenario)


def test_a_hostile_name_of_a_static_user():
    async def scenario(world):
        for hostile in HOSTILE:
            if hostile != "postgres":  # there is one, and its password may be anybody's to manage
                static = {"db_name": "pg", "username": hostile, "rotation_period": "1h"}
                assert await changes_nothing(world.write("static-roles/s", **static)) is not None, hostile

    with_database(scenario)


def test_ten_thousand_names_differ_and_fit():
    for plugin, most, count in ((postgresql, 63, 10_000), (mysql, 32, 2000), (mongodb, 100, 2000)):
        names = set()
        for number in range(count):
            lease = LEASE._replace(id=f"database/creds/r/{number}")
            names.add(name_of(lease, plugin.TEMPLATE, HOSTILE[number % len(HOSTILE)], HOSTILE[number % 7]))
        assert len(names) == count
        assert max(len(name.encode()) for name in names) <= most
