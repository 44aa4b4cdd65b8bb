"""Users of a real PostgreSQL: made for a lease, renewed with it, and gone with it whatever fails."""

import asyncio

import psycopg
import pytest

import database_server
import postgres_server
from engines.database_world import CREATION, with_database
from keyhole.core.errors import KeyholeError
from vault.world import child, journal, org, refusal, rows

may_log_in, users = database_server.may_log_in, database_server.users


def test_a_user_may_log_in_until_its_lease_is_revoked():
    async def scenario(world):
        lease, name, password = await world.creds()
        assert name.startswith("v-root-r-")
        assert (lease.ttl, lease.renewable) == (3600, True)
        assert abs(database_server.valid_until(name) - lease.expires - 5) < 2
        with database_server.log_in(name, password) as session:
            session.execute("SELECT * FROM notes")
            await world.revoke(lease)
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        assert not may_log_in(name, password)
        assert name not in users()

    with_database(scenario)


def test_a_password_stands_in_no_journal_and_in_no_lease():
    async def scenario(world):
        lease, _, password = await world.creds()
        raw = b"".join(bytes(row.body) for row in await rows(world.vault))
        assert password.encode() not in raw
        assert not any(password in repr(record) for _, record in await journal(world.vault))
        found = await world.vault.vault.leases.find(world.vault.vault.root_org, lease.id)
        assert password not in str(dict(found.internal))

    with_database(scenario)


def test_a_user_ends_with_its_time_its_token_and_its_prefix():
    async def scenario(world):
        _, first, _ = await world.creds()
        token = await child(world.vault, policies=["root"])
        _, second, _ = await world.creds(token=token)
        assert second.startswith("v-token-r-")
        await world.vault.ask("update", "auth/token/revoke", {"token": token})
        await world.sweep()
        assert {first, second} & users() == {first}
        world.clock.advance(3601)
        await world.sweep()
        assert first not in users()
        made = [(await world.creds())[1] for _ in range(3)]
        assert set(made) <= users()
        await world.vault.ask("update", "sys/leases/revoke-prefix/database/creds/r", {"sync": True})
        assert not set(made) & users()

    with_database(scenario)


def test_a_renewal_lets_the_user_live_longer():
    async def scenario(world):
        lease, name, _ = await world.creds()
        world.clock.advance(1800)
        renewed = (await world.renew(lease, 3600)).lease
        assert renewed.expires == lease.expires + 1800
        assert abs(database_server.valid_until(name) - renewed.expires - 5) < 2

    with_database(scenario)


def test_statements_of_the_role_take_back_and_renew():
    async def scenario(world):
        await world.role(
            "own",
            revocation_statements=[
                'REASSIGN OWNED BY "{{name}}" TO postgres; DROP OWNED BY "{{name}}"',
                'DROP ROLE "{{name}}"',
            ],
            renew_statements="COMMENT ON ROLE \"{{name}}\" IS 'until {{expiration}}'",
            creation_statements=[*CREATION, 'GRANT CREATE ON SCHEMA public TO "{{name}}"'],
        )
        lease, name, password = await world.creds("own")
        with database_server.log_in(name, password) as session:
            session.execute("CREATE TABLE made_by_a_user ()")
        await world.renew(lease)
        with postgres_server.superuser() as session:
            query = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s"
            assert session.execute(query, (name,)).fetchone()[0].startswith("until 20")
        await world.revoke(lease)
        assert name not in users()
        with postgres_server.superuser() as session:
            session.execute("DROP TABLE made_by_a_user")

    with_database(scenario)


def test_a_user_that_owns_something_cannot_log_in_any_more_and_its_lease_says_why():
    async def scenario(world):
        await world.role("own", creation_statements=[*CREATION, 'GRANT CREATE ON SCHEMA public TO "{{name}}"'])
        lease, name, password = await world.creds("own")
        with database_server.log_in(name, password) as session:
            session.execute("CREATE TABLE kept ()")
        error = await refusal(world.revoke(lease))
        assert "cannot be dropped because some objects depend on it" in error.reason
        assert "REASSIGN OWNED" in error.hint
        assert not may_log_in(name, password)
        with postgres_server.superuser() as session:
            session.execute("DROP TABLE kept")
        await world.revoke(lease)
        assert name not in users()

    with_database(scenario)


def test_what_a_user_owns_makes_its_lease_irrevocable_with_an_alarm_and_is_tried_again_once_a_day():
    async def scenario(world):
        may_create = [*CREATION, 'GRANT CREATE ON SCHEMA public TO "{{name}}"']
        await world.role("own", creation_statements=may_create, default_ttl="1h")
        _, name, password = await world.creds("own")
        with database_server.log_in(name, password) as session:
            session.execute("CREATE TABLE kept ()")
        world.clock.advance(3601)
        tries = 0
        while not (found := (await world.vault.ask("read", "sys/leases", {"type": "irrevocable"})).data["leases"]):
            await world.sweep()
            world.clock.advance(3600)
            tries += 1
            assert tries < 10
        assert "cannot be dropped" in found[0]["error"]
        assert [record.operation for _, record in await journal(world.vault)].count("alarm") == 1
        assert not may_log_in(name, password)
        failed = world.vault.vault.expiry.counts["failed"]
        for _ in range(20):
            world.clock.advance(3600)
            await world.sweep()
        assert world.vault.vault.expiry.counts["failed"] - failed <= 1
        with postgres_server.superuser() as session:
            session.execute(f'REASSIGN OWNED BY "{name}" TO postgres')
            session.execute("DROP TABLE kept")
        world.clock.advance(2 * 86_400)
        await world.sweep()
        assert name not in users()

    with_database(scenario)


OBJECTS = """
CREATE SCHEMA IF NOT EXISTS "odd ""schema"; CREATE TABLE IF NOT EXISTS "odd ""schema"."T 1" (n int);
CREATE SEQUENCE IF NOT EXISTS counter; CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1
"""
GRANTS = """
GRANT USAGE ON SCHEMA "odd ""schema" TO "{{name}}" WITH GRANT OPTION;
GRANT SELECT (n) ON "odd ""schema"."T 1" TO "{{name}}"; GRANT INSERT ON notes TO "{{name}}" WITH GRANT OPTION;
GRANT USAGE ON SEQUENCE counter TO "{{name}}"; GRANT EXECUTE ON FUNCTION one() TO "{{name}}";
GRANT USAGE ON LANGUAGE plpgsql TO "{{name}}"; GRANT CREATE ON TABLESPACE pg_default TO "{{name}}";
GRANT TEMPORARY ON DATABASE vault TO "{{name}}"; GRANT pg_monitor TO "{{name}}";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "{{name}}";
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO "{{name}}";
ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT EXECUTE ON FUNCTIONS TO "{{name}}"
"""


def test_a_user_is_dropped_with_all_kinds_of_grants_and_in_the_middle_of_a_transaction():
    async def scenario(world):
        with postgres_server.superuser() as session:
            session.execute(OBJECTS)
        await world.role("much", creation_statements=[*CREATION, GRANTS])
        lease, name, password = await world.creds("much")
        _, other, _ = await world.creds()
        session = database_server.log_in(name, password)
        session.autocommit = False
        session.execute(f'GRANT INSERT ON notes TO "{other}"')
        session.execute(
            "CREATE TEMPORARY TABLE mine (); INSERT INTO notes VALUES ('x'); LOCK TABLE notes IN ROW EXCLUSIVE MODE"
        )
        await world.revoke(lease)
        assert name not in users()
        assert other in users()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()

    with_database(scenario)


def test_what_is_gone_already_counts_as_taken_back():
    async def scenario(world):
        await world.role(
            "own", revocation_statements='DROP ROLE "{{name}}"', creation_statements=CREATION[0].split(";")[0]
        )
        for role in ("r", "own"):
            lease, name, _ = await world.creds(role)
            with postgres_server.superuser() as session:
                session.execute(f'DROP OWNED BY "{name}"')
                session.execute(f'DROP ROLE "{name}"')
            await world.revoke(lease)
            gone = await refusal(world.vault.ask("update", "sys/leases/lookup", {"lease_id": lease.id}))
            assert gone.reason == "invalid lease"

    with_database(scenario)


def test_sessions_of_a_kind_are_let_go_and_only_passwords_are_made():
    async def scenario(world):
        await world.config("second")
        assert await world.write("reload/postgresql-database-plugin") == {"connections": ["pg", "second"], "count": 2}
        assert await world.write("reload/mysql-database-plugin") == {"connections": [], "count": 0}
        assert (await refusal(world.write("reload/no-such-plugin"))).status == 400
        lease, _, _ = await world.creds()
        await world.revoke(lease)
        for kind in ("rsa_private_key", "client_certificate", "other"):
            assert "credential_type is password" in (await refusal(world.role("k", credential_type=kind))).reason

    with_database(scenario)


def test_a_lease_outlives_its_role():
    async def scenario(world):
        lease, name, _ = await world.creds()
        await world.vault.ask("delete", "database/roles/r")
        assert (await refusal(world.creds())).reason == "unknown role: r"
        await world.renew(lease)
        await world.revoke(lease)
        assert name not in users()

    with_database(scenario)


@pytest.mark.parametrize("at", ["before", "made", "cancelled"])
def test_what_is_cut_off_while_it_is_made_is_taken_back(at, monkeypatch):
    """The process that made it dies: the lease is found when it is due, and the user by it."""

    async def scenario(world):
        from keyhole.engines.database.plugins import postgresql

        run = postgresql.PostgresSession.run

        async def cut(self, statements, *secret, user=""):
            if user and at != "before":
                await run(self, statements, *secret, user=user)
            if user:
                raise asyncio.CancelledError if at == "cancelled" else Died
            await run(self, statements, *secret, user=user)

        async def nobody(*_about):
            return None

        before = users()
        monkeypatch.setattr(postgresql.PostgresSession, "run", cut)
        if at == "made":
            from keyhole.vault.desk import Desk

            monkeypatch.setattr(Desk, "give_up", nobody)
        with pytest.raises((asyncio.CancelledError, KeyholeError, Died)):
            await world.creds()
        monkeypatch.undo()
        if at == "made":
            assert len(users() - before) == 1
        world.clock.advance(31)
        await world.sweep()
        assert users() <= before
        assert not await world.vault.vault.leases.all_queued(world.vault.vault.root_org)

    with_database(scenario)


class Died(BaseException):
    pass


def test_statements_that_fail_leave_nothing_and_run_the_rollback():
    async def scenario(world):
        before = users()
        await world.role(
            "bad",
            creation_statements=[*CREATION, "SELECT no_such_thing()"],
            rollback_statements="CREATE TABLE rolled_back ()",
        )
        error = await refusal(world.creds("bad"))
        assert error.status == 500
        assert error.reason == "pq: function no_such_thing() does not exist"
        assert users() == before
        with postgres_server.superuser() as session:
            session.execute("DROP TABLE rolled_back")

    with_database(scenario)


def test_a_role_has_to_make_the_user_of_its_lease():
    async def scenario(world):
        before = users("")
        await world.role("other", creation_statements="CREATE ROLE somebody_else PASSWORD '{{password}}'")
        assert "no user of this name" in (await refusal(world.creds("other"))).reason
        assert users("") == before

    with_database(scenario)


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE ROLE "{{name}}" WITH LOGIN PASSWORD {{password}}',
        'CREATE ROLE "{{name}}" {{password}}',
        "SELECT '{{password}}'::int",
    ],
)
def test_an_error_never_has_the_password(statement, monkeypatch):
    known = []

    async def scenario(world):
        from keyhole.engines.database import connections as module

        make = module.new_password

        def new_password(rules=None):
            known.append(f"q7{make(rules)[2:]}")  # one that begins with -- would be a comment, and no error
            return known[-1]

        monkeypatch.setattr(module, "new_password", new_password)
        await world.role("bad", creation_statements=statement)
        error = await refusal(world.creds("bad"))
        assert known
        assert error.reason.startswith("pq: ")
        for length in range(4, 21):
            said = str(error).lower()  # a database folds what it takes for a word
            assert not any(known[0][i : i + length].lower() in said for i in range(21 - length))

    with_database(scenario)


def test_only_roles_that_the_connection_names_may_use_it():
    async def scenario(world):
        await world.config(allowed_roles="r,app-*")
        await world.role("na")
        error = await refusal(world.creds("na"))
        assert (error.status, error.reason) == (500, '1 error occurred:\n\t* "na" is not an allowed role\n\n')
        await world.role("app-1")
        lease, _, _ = await world.creds("app-1")
        await world.revoke(lease)

    with_database(scenario)


def test_a_connection_is_tried_before_it_counts_and_never_shows_its_password():
    async def scenario(world):
        error = await refusal(world.config("bad", password="wrong"))
        what = "error creating database object: error verifying connection: "
        expected = what + 'pq: password authentication failed for user "vaultroot"'
        assert (error.status, error.reason) == (400, expected)
        assert await refusal(world.read("config/bad"))
        await world.config("bad", password="wrong", verify_connection=False)
        shown = await world.read("config/bad")
        assert shown["allowed_roles"] == ["*"]
        assert shown["connection_details"] == {
            "connection_url": database_server.started(),
            "username": database_server.ADMIN,
        }
        assert "wrong" not in str(shown)
        await world.config(
            "bad", connection_url="postgresql://me:a-literal-word@/vault?host=/tmp", verify_connection=False
        )
        assert "a-literal-word" not in str(await world.read("config/bad"))

    with_database(scenario)


def test_a_stored_password_goes_nowhere_else():
    async def scenario(world):
        url = "postgresql://{{username}}:{{password}}@/vault?host=/tmp/elsewhere"
        error = await refusal(world.write("config/pg", connection_url=url, verify_connection=False))
        assert "without the password" in error.reason
        await world.write("config/pg", allowed_roles="r")
        assert (await world.read("config/pg"))["allowed_roles"] == ["r"]

    with_database(scenario)


def test_sockets_of_the_machine_are_for_the_org_root():
    async def scenario(world):
        token = await org(world.vault, "acme")
        await world.vault.ask("update", "sys/mounts/database", {"type": "database"}, token=token)
        error = await refusal(world.config("mine", connection_url=database_server.started(), token=token))
        assert "names a socket" in error.reason

    with_database(scenario)


@pytest.mark.parametrize("url", ["postgresql://u:p@127.0.0.1:5432/x", database_server.URL.format(folder="/tmp")])
def test_addresses_of_the_private_network_need_sudo(url):
    async def scenario(world):
        rules = 'path "database/*" { capabilities = ["create", "update", "read"] }'
        await world.vault.ask("update", "sys/policies/acl/plain", {"policy": rules})
        token = await child(world.vault, policies=["plain"])
        error = await refusal(world.config("mine", connection_url=url, token=token))
        assert error.code == "address_denied"

    with_database(scenario)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@/vault",
        "postgresql://u:p@h/vault?passfile=/etc/shadow",
        "postgresql://u:p@h/vault?service=x",
        "postgresql://u:p@h/vault?options=-csession_preload_libraries%3Dx",
        "postgresql://u:p@h/vault?sslrootcert=/etc/passwd",
        "postgresql://u:p@h:99999/vault",
        "mysql://u:p@h/vault",
    ],
)
def test_a_url_that_leads_elsewhere_is_refused(url):
    async def scenario(world):
        error = await refusal(world.config("bad", connection_url=url))
        assert error.code == "invalid_request", error
        assert "p@h" not in str(error)

    with_database(scenario)


def test_user_names_by_a_template_of_ones_own():
    async def scenario(world):
        template = "{{ .RoleName | uppercase | truncate 4 }}_{{ random 12 | lowercase }}_{{ unix_time }}"
        await world.config(username_template="v-" + template)
        lease, name, password = await world.creds()
        assert name.startswith("v-R_")
        assert may_log_in(name, password)
        await world.config(username_template="")
        await world.revoke(lease)
        assert name not in users()
        for bad in (
            "{{ .RoleName }}-{{ unix_time }}",
            "{{ random 3 }}",
            "{{ exec 1 }}",
            "{{ (random 20",
            "'{{ random 20 }}",
        ):
            assert (await refusal(world.config(username_template=bad))).code == "invalid_request", bad

    with_database(scenario)


def test_a_password_is_sent_as_a_verifier_when_that_is_wanted():
    async def scenario(world):
        await world.config(password_authentication="scram-sha-256")
        lease, name, password = await world.creds()
        assert may_log_in(name, password)
        await world.revoke(lease)

    with_database(scenario)


def test_a_display_name_cannot_leave_its_place_in_a_statement():
    async def scenario(world):
        token = await child(world.vault, policies=["root"], display_name='x"; DROP TABLE notes; --')
        lease, name, _ = await world.creds(token=token)
        assert name.startswith("v-token-x-")
        await world.revoke(lease)

    with_database(scenario)


def test_many_at_once_share_a_bounded_number_of_sessions():
    async def scenario(world):
        await world.config(max_open_connections=2)
        made = await asyncio.gather(*(world.creds() for _ in range(12)))
        assert {name for _, name, _ in made} <= users()
        with postgres_server.superuser() as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
            assert session.execute(query, (database_server.ADMIN,)).fetchone()[0] <= 2
        await world.vault.ask("update", "sys/leases/revoke-prefix/database/creds/r", {"sync": True})
        assert not {name for _, name, _ in made} & users()

    with_database(scenario)


def test_many_are_taken_back_in_one_try_and_one_that_cannot_be_keeps_none_of_the_others():
    async def scenario(world):
        more = [*CREATION, 'GRANT CREATE ON SCHEMA public TO "{{name}}"']
        await world.role("own", creation_statements=more, default_ttl="1h")
        drop = 'DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}"'
        await world.role("said", revocation_statements=drop, default_ttl="1h")
        made = [await world.creds() for _ in range(5)]
        _, owner, password = await world.creds("own")
        with database_server.log_in(owner, password) as session:
            session.execute("CREATE TABLE kept ()")
        with database_server.log_in(made[0][1], made[0][2]) as open_session:
            made += [await world.creds("said") for _ in range(2)]
            world.clock.advance(3601)
            await world.sweep()
            with pytest.raises(psycopg.OperationalError):
                open_session.execute("SELECT 1")
        assert users() & {owner, *(name for _, name, _ in made)} == {owner}
        assert not may_log_in(owner, password)
        with postgres_server.superuser() as session:
            session.execute("DROP TABLE kept")
        world.clock.advance(13)
        await world.sweep()
        assert owner not in users()

    with_database(scenario)
