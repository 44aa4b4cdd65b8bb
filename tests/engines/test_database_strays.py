"""Users of a database that no lease knows are found, shown, and taken away only when they are named."""

import pytest
import trustme

import database_server
import postgres_server
import tls_front
from engines.database_world import CONFIG, CREATION, with_database
from engines.transit_world import clear
from keyhole.core.errors import InvalidRequest
from keyhole.engines.database.strays import beginning_of
from vault.world import journal, refusal

users = database_server.users
STRAY, OTHER = "v-root-r-0123456789", "v-someone-elses"


async def sweep(world, **data):
    return (await world.vault.ask("update", "sys/leases/sweep", {"strays": True, **data})).data


def made(*names):
    with postgres_server.superuser() as session:
        for name in names:
            session.execute(f'DROP ROLE IF EXISTS "{name}"')
            session.execute(f'CREATE ROLE "{name}" LOGIN')


def only(names, found):
    """Of what was found, those of this test; the server has users of other tests too."""
    return [stray for stray in found if stray["name"] in names]


def test_a_user_that_no_lease_knows_is_shown_and_dropped_only_by_name():
    async def scenario(world):
        await world.write("static-roles/kept", db_name="pg", username="v-static", rotation_period="1h")
        _, active, password = await world.creds()
        made(STRAY, OTHER)
        found = await sweep(world)
        names = {STRAY, OTHER, active, "v-static"}
        assert only(names, found["strays"]) == [
            {"mount": "database/", "target": "pg", "name": name, "dropped": False} for name in (STRAY, OTHER)
        ]
        assert found["unseen"] == []
        assert {STRAY, OTHER} <= users()
        named = [{"mount": "database/", "target": "pg", "name": name} for name in (STRAY, active)]
        dropped = await sweep(world, drop=named)
        assert [(stray["name"], stray["dropped"]) for stray in only(names, dropped["strays"])] == [
            (STRAY, True),
            (OTHER, False),
        ]
        assert STRAY not in users()
        assert {OTHER, active, "v-static"} <= users()
        assert database_server.may_log_in(active, password)
        said = [(r.path, r.result, r.caller) for _, r in await journal(world.vault) if r.operation == "drop-stray"]
        assert said == [(f"database/pg/{STRAY}", "ok", "user/root")]
        with postgres_server.superuser() as session:
            session.execute(f'DROP ROLE "{OTHER}"')

    made("v-static")
    with_database(scenario)


def test_users_of_another_org_are_no_strays():
    async def scenario(world):
        admin = (await world.vault.ask("update", "sys/namespaces/acme")).data["root_token"]
        with tls_front.serving(trustme.CA()) as (port, _):  # sockets of the machine are for the org root alone
            url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/vault?sslmode=disable"
            config = {**CONFIG, "connection_url": url}
            role = {"db_name": "pg", "creation_statements": CREATION}
            for path, data in (("sys/mounts/db", {"type": "database"}), ("db/config/pg", config), ("db/roles/r", role)):
                await world.vault.ask("update", path, data, token=admin)
            theirs = clear((await world.vault.ask("read", "db/creds/r", token=admin)).data)["username"]
            assert theirs in users()
            assert theirs not in [stray["name"] for stray in (await sweep(world))["strays"]]

    with_database(scenario)


def test_a_database_that_cannot_be_asked_is_named():
    async def scenario(world):
        nowhere = "postgresql://{{username}}:{{password}}@127.0.0.1:1/vault"
        await world.config("gone", connection_url=nowhere, verify_connection=False)
        await world.config("mixed", username_template="{{ random 20 }}")
        unseen = (await sweep(world))["unseen"]
        assert {entry["target"]: entry["mount"] for entry in unseen} == {"gone": "database/", "mixed": "database/"}
        assert all(entry["error"] for entry in unseen)

    with_database(scenario)


@pytest.mark.parametrize("drop", ["x", [1], [{}], [{"mount": "database/", "target": "pg"}], [{"mount": 1}] * 3])
def test_what_names_no_strays_is_refused(drop):
    async def scenario(world):
        assert isinstance(await refusal(sweep(world, drop=drop)), InvalidRequest)

    with_database(scenario)


@pytest.mark.parametrize(
    ("template", "beginning"),
    [
        ('{{ printf "v-%s-%s" (.DisplayName) (random 20) }}', "v-"),
        ("keyhole_{{ random 20 }}", "keyhole_"),
        ('{{ printf "app-%s-%s" (.RoleName | truncate 4) (unix_time) }}', "app-"),
    ],
)
def test_users_are_told_by_the_beginning_of_their_template(template, beginning):
    assert beginning_of(template) == beginning


def test_names_without_a_beginning_are_not_looked_for():
    with pytest.raises(InvalidRequest, match="no beginning in common"):
        beginning_of("{{ random 20 }}-x")
