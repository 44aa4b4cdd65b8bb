"""Users that a database has already: their passwords, and our own, are replaced and never lost."""

import json

import pytest

import database_server
import postgres_server
from engines.database_world import with_database
from engines.mounting import storage_of
from vault.world import journal, refusal, rows

may_log_in = database_server.may_log_in
APP = {"db_name": "pg", "username": "app", "rotation_period": "1h"}


def with_app(scenario):
    async def wrapped(world):
        with postgres_server.superuser() as session:
            session.execute("DROP ROLE IF EXISTS app")
            session.execute("CREATE ROLE app LOGIN PASSWORD 'a first password'")
        await world.write("static-roles/s", **APP)
        await scenario(world)

    with_database(wrapped)


def test_the_password_is_replaced_at_once_on_demand_and_in_time():
    async def scenario(world):
        first = await world.read("static-creds/s")
        assert (first["username"], first["rotation_period"], first["ttl"]) == ("app", 3600, 3600)
        assert not may_log_in("app", "a first password")
        assert may_log_in("app", first["password"])
        await world.write("rotate-role/s")
        second = await world.read("static-creds/s")
        assert not may_log_in("app", first["password"])
        assert may_log_in("app", second["password"])
        world.clock.advance(3599)
        await world.sweep()
        assert (await world.read("static-creds/s"))["password"] == second["password"]
        world.clock.advance(2)
        await world.sweep()
        third = await world.read("static-creds/s")
        assert third["password"] not in {first["password"], second["password"]}
        assert may_log_in("app", third["password"])
        assert third["ttl"] == 3600
        raw = b"".join(bytes(row.body) for row in await rows(world.vault))
        assert not any(each["password"].encode() in raw for each in (first, second, third))
        assert any(record.operation == "due" for _, record in await journal(world.vault))

    with_app(scenario)


@pytest.mark.parametrize("done", [False, True])
def test_a_rotation_that_was_cut_off_is_finished_with_the_same_password(done, monkeypatch):
    """The process dies before or after the database has taken the new password."""

    async def scenario(world):
        from keyhole.engines.database.plugins import postgresql

        run = postgresql.PostgresSession.run

        async def cut(self, statements, *secret, user=""):
            if done:
                await run(self, statements, *secret, user=user)
            raise Died

        monkeypatch.setattr(postgresql.PostgresSession, "run", cut)
        with pytest.raises(Died):
            await world.write("rotate-role/s")
        monkeypatch.undo()
        item = await (await storage_of(world.vault, "database")).get_one("static-roles/s")
        stored = json.loads(item.data)
        assert may_log_in("app", stored["pending"] if done else stored["password"])
        assert may_log_in("app", (await world.read("static-creds/s"))["password"])
        assert "at this moment" in (await refusal(world.write("rotate-role/s"))).reason
        world.clock.advance(61)
        await world.sweep()
        found = await world.read("static-creds/s")
        assert found["password"] == stored["pending"]
        assert may_log_in("app", found["password"])

    with_app(scenario)


class Died(BaseException):
    pass


def test_a_rotation_that_fails_is_tried_again_and_the_old_password_stays():
    async def scenario(world):
        before = await world.read("static-creds/s")
        await world.write("static-roles/s", rotation_statements="SELECT no_such_thing()")
        assert (await refusal(world.write("rotate-role/s"))).code == "target_failed"
        assert (await world.read("static-creds/s"))["password"] == before["password"]
        await world.write("static-roles/s", rotation_statements=[])
        world.clock.advance(11)
        await world.sweep()
        after = await world.read("static-creds/s")
        assert after["password"] != before["password"]
        assert may_log_in("app", after["password"])

    with_app(scenario)


@pytest.mark.parametrize("done", [False, True])
def test_a_static_role_whose_making_was_cut_off_is_finished_with_the_same_password(done, monkeypatch):
    async def scenario(world):
        from keyhole.engines.database.plugins import postgresql

        run = postgresql.PostgresSession.run

        async def cut(self, statements, *secret, user=""):
            if done:
                await run(self, statements, *secret, user=user)
            raise Died

        await world.vault.ask("delete", "database/static-roles/s")
        monkeypatch.setattr(postgresql.PostgresSession, "run", cut)
        with pytest.raises(Died):
            await world.write("static-roles/n", **APP)
        monkeypatch.undo()
        if done:
            assert may_log_in("app", (await world.read("static-creds/n"))["password"])
        else:
            assert (await refusal(world.read("static-creds/n"))).code == "target_failed"
        world.clock.advance(61)
        await world.sweep()
        assert may_log_in("app", (await world.read("static-creds/n"))["password"])

    with_app(scenario)


def test_a_static_role_stays_when_nobody_knows_whether_the_database_took_its_password(monkeypatch):
    """The connection breaks after the statement was sent: the database has the new password, and so have we."""

    async def scenario(world):
        from keyhole.engines.database.plugins import postgresql

        run = postgresql.PostgresSession.run

        async def broken(self, statements, *secret, user=""):
            await run(self, statements, *secret, user=user)
            with postgres_server.superuser() as session:
                query = "SELECT pg_terminate_backend(%s)"
                session.execute(query, (self.connection.info.backend_pid,))
            await run(self, ["SELECT 1"], *secret)

        await world.vault.ask("delete", "database/static-roles/s")
        monkeypatch.setattr(postgresql.PostgresSession, "run", broken)
        assert (await refusal(world.write("static-roles/n", **APP))).code == "target_failed"
        monkeypatch.undo()
        world.clock.advance(11)
        await world.sweep()
        assert may_log_in("app", (await world.read("static-creds/n"))["password"])

    with_app(scenario)


def test_one_user_has_one_static_role():
    async def scenario(world):
        error = await refusal(world.write("static-roles/second", **APP))
        assert "'s' has this user already" in error.reason
        assert (await refusal(world.read("static-roles/second"))).status == 404
        own = {**APP, "username": database_server.ADMIN}
        assert "rotate-root" in (await refusal(world.write("static-roles/second", **own))).hint
        await world.write("static-roles/s", rotation_period="2h")
        await world.config("again")
        await world.write("static-roles/s", db_name="again")
        error = await refusal(world.write("static-roles/second", **{**APP, "db_name": "again"}))
        assert "'s' has" in error.reason
        await world.vault.ask("delete", "database/static-roles/s")
        await world.write("static-roles/second", **{**APP, "db_name": "again"})
        assert may_log_in("app", (await world.read("static-creds/second"))["password"])

    with_app(scenario)


def test_what_cannot_be_a_static_role_is_refused_and_leaves_nothing():
    async def scenario(world):
        for wrong in (
            {"username": "nobody-like-this"},
            {"rotation_period": "2s"},
            {"username": 'a"b'},
            {"db_name": "none"},
            {"db_name": ""},
        ):
            assert await refusal(world.write("static-roles/x", **{**APP, **wrong})), wrong
            assert (await refusal(world.read("static-roles/x"))).status == 404
        assert "cannot update" in (await refusal(world.write("static-roles/s", username="vaultroot"))).reason

    with_app(scenario)


def test_our_own_password_is_replaced_by_one_that_nobody_has():
    async def scenario(world):
        await world.write("rotate-root/pg")
        assert not may_log_in(database_server.ADMIN, database_server.PASSWORD)
        lease, name, _ = await world.creds()
        await world.revoke(lease)
        assert name not in database_server.users()

    with_database(scenario)


def test_our_own_password_is_replaced_by_statements_of_the_connection():
    async def scenario(world):
        own = "ALTER ROLE \"{{username}}\" PASSWORD '{{password}}'; COMMENT ON ROLE \"{{name}}\" IS 'replaced'"
        await world.write("config/pg", root_rotation_statements=[own])
        assert (await world.read("config/pg"))["root_credentials_rotate_statements"] == [own]
        await world.write("rotate-root/pg")
        assert not may_log_in(database_server.ADMIN, database_server.PASSWORD)
        with postgres_server.superuser() as session:
            said = session.execute(f"SELECT shobj_description('{database_server.ADMIN}'::regrole, 'pg_authid')")
            assert said.fetchone() == ("replaced",)

    with_database(scenario)


@pytest.mark.parametrize("done", [False, True])
def test_our_own_password_is_not_lost_when_its_replacement_is_cut_off(done, monkeypatch):
    async def scenario(world):
        from keyhole.engines.database.plugins import postgresql

        run = postgresql.PostgresSession.run

        async def cut(self, statements, *secret, user=""):
            if done:
                await run(self, statements, *secret, user=user)
            raise Died

        monkeypatch.setattr(postgresql.PostgresSession, "run", cut)
        with pytest.raises(Died):
            await world.write("rotate-root/pg")
        monkeypatch.undo()
        assert may_log_in(database_server.ADMIN, database_server.PASSWORD) is not done
        lease, _, _ = await world.creds()
        await world.revoke(lease)
        world.clock.advance(61)
        await world.write("rotate-root/pg")
        lease, _, _ = await world.creds()
        await world.revoke(lease)

    with_database(scenario)


def test_passwords_by_a_policy():
    async def scenario(world):
        rules = 'length = 30 rule "charset" { charset = "abcdef" }'
        assert (await refusal(world.config(password_policy="hex"))).status == 404
        await world.vault.ask("update", "sys/policies/password/hex", {"policy": rules})
        await world.config(password_policy="hex")
        lease, name, password = await world.creds()
        assert set(password) <= set("abcdef")
        assert len(password) == 30
        assert may_log_in(name, password)
        await world.revoke(lease)

    with_database(scenario)
