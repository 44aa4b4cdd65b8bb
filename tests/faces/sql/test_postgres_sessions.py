"""What a session may be, and when it ends: by revocation, by its lease, by a limit, and by nobody's mistake alone."""

import dataclasses
import threading
import time

import psycopg
import pytest

import sql_postgres
from keyhole.config import Config
from keyhole.core.errors import KeyholeError
from sql_postgres import ADMIN, APP, APP_PASSWORD, HOST, PASSWORD
from sql_world import World

SECONDS = 60


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def refused(world, **options):
    """The SQLSTATE and the text with which a session is refused."""
    with pytest.raises(psycopg.OperationalError) as raised:
        world.connect(**options)
    return str(raised.value)


@pytest.fixture(scope="module")
def leasing(world):
    """A service that lends users which are made for each session."""
    port = sql_postgres.started()
    world.ask("update", "sys/mounts/database", {"type": "database"})
    world.ask(
        "update",
        "database/config/shop",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/{sql_postgres.DATABASE}",
            "username": ADMIN,
            "password": PASSWORD,
            "allowed_roles": "*",
        },
    )
    make = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
    world.ask(
        "update",
        "database/roles/reader",
        {"db_name": "shop", "creation_statements": make, "default_ttl": "10m", "max_ttl": "1h"},
    )
    world.service("leased", "postgres", HOST, port, "/database/creds/reader", database=sql_postgres.DATABASE)
    return world


def users():
    with sql_postgres.admin() as connection:
        found = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'v-')").fetchall()
    return {name for (name,) in found}


def leases(world):
    try:
        return world.ask("list", "sys/leases/lookup/database/creds/reader/")["keys"]
    except KeyholeError:
        return []


def test_each_session_has_a_user_of_its_own_that_goes_with_it(leasing):
    token = leasing.agent("renter", "leased")
    with leasing.connect("leased", token) as one, leasing.connect("leased", token) as two:
        names = {c.execute("SELECT current_user").fetchone()[0] for c in (one, two)}
        assert len(names) == 2
        assert names <= users()
    until(lambda: not names & users())
    until(lambda: not leases(leasing))
    [outcome] = [r for r in leasing.records("leased", 4) if r["phase"] == "outcome"][:1]
    assert outcome["lease"].startswith("database/creds/reader/")
    assert outcome["secrets"] == ("/database/creds/reader",)


def test_a_session_ends_when_its_lease_is_revoked(leasing):
    token = leasing.agent("evicted", "leased")
    with leasing.connect("leased", token) as session:
        [lease] = leases(leasing)
        leasing.ask("update", "sys/leases/revoke", {"lease_id": f"database/creds/reader/{lease}"})
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT pg_sleep(60)")


@pytest.mark.parametrize("reason", ["token", "grant", "service", "secret"])
def test_a_session_ends_with_what_it_was_opened_by(world, reason):
    world.secret("db/mine", username=APP, password=APP_PASSWORD)
    name = f"mine-{reason}"
    world.service(name, "postgres", HOST, sql_postgres.started(), "db/mine")
    token = world.agent(f"agent-{reason}", name)
    session = world.connect(name, token)
    pid = session.execute("SELECT pg_backend_pid()").fetchone()[0]
    {
        "token": lambda: world.ask("update", "auth/token/revoke", {"token": token}),
        "grant": lambda: world.ask("delete", f"agents/agent-{reason}/services/{name}"),
        "service": lambda: world.ask("delete", f"services/{name}"),
        "secret": lambda: world.ask("delete", "secret/metadata/db/mine"),
    }[reason]()
    with pytest.raises(psycopg.OperationalError) as raised:
        session.execute("SELECT pg_sleep(60)")
    assert "terminating" not in str(raised.value)
    assert raised.value.sqlstate in {"57P01", None}

    def gone():
        with sql_postgres.admin() as connection:
            return not connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()

    until(gone)  # the database does not go on with the statement either
    codes = {"token": "unauthenticated", "grant": "policy_denied", "service": "policy_denied", "secret": "not_found"}
    assert world.records(name, 2)[1]["result"] == codes[reason]


def test_who_has_no_grant_or_no_token_is_refused_and_recorded(world):
    world.agent("stranger")
    stranger = world.ask("update", "agents/stranger/token", {"scope": "proxy"})["token"]
    assert "policy_denied: agent/stranger may not use the service 'shop'" in refused(world, token=stranger)
    assert "unauthenticated" in refused(world, token="no token at all")
    assert "no_service" in refused(world, service="nothing")
    assert any(r["phase"] == "refused" and r["caller"] == "agent/stranger" for r in world.records("shop"))


def test_an_http_service_is_no_database_and_a_database_no_http_service(world):
    world.secret("web/key", value="sk-web-key-0123456789")
    data = {"hosts": [f"{HOST}:{sql_postgres.started()}"], "secret": "web/key", "inject": {"kind": "bearer"}}
    world.ask("update", "services/web", {**data, "schemes": ["http"]})
    token = world.agent("both", "web")
    assert "no_service: the service 'web' is a database" in refused(world, service="web", token=token)


def test_a_service_with_a_database_opens_no_other(world):
    world.service("one", "postgres", HOST, sql_postgres.started(), "db/app", database="shop")
    token = world.agent("bound", "one")
    assert "policy_denied: the service 'one' opens the database 'shop' only" in refused(
        world, service="one", token=token, database="postgres"
    )
    with world.connect("one", token, database="one") as session:  # what libpq names when nobody does
        assert session.execute("SELECT current_database()").fetchone() == ("shop",)


def test_a_database_that_is_not_there_is_said_with_its_own_code(world):
    with pytest.raises(psycopg.OperationalError) as raised:
        world.connect(database="nowhere")
    assert "it has no database of that name" in str(raised.value)


def test_replication_needs_the_services_leave(world):
    assert "lets nobody replicate the database" in refused(world, replication="database")


def test_the_callers_own_token_reaches_no_database(world):
    assert "the token of its own caller" in refused(world, application_name=f"x{world.token}")


@pytest.mark.parametrize("user", ["md5_user", "clear_user", APP])
def test_every_way_of_logging_in_works_under_tls(world, user):
    world.secret(f"db/{user}", username=user, password=APP_PASSWORD)
    world.service(f"way-{user}", "postgres", HOST, sql_postgres.started(), f"db/{user}")
    with world.connect(f"way-{user}", world.agent("ways", f"way-{user}")) as session:
        assert session.execute("SELECT current_user").fetchone() == (user,)


def test_a_password_in_clear_needs_tls(world):
    world.secret("db/clear", username="clear_user", password=APP_PASSWORD)
    world.service("clear", "postgres", HOST, sql_postgres.started(), "db/clear", sslmode="disable")
    token = world.agent("clear", "clear")
    assert "asks for the password in clear, and the connection has no TLS" in refused(
        world, service="clear", token=token
    )


def test_a_wrong_password_is_told_without_the_databases_words(world):
    world.secret("db/wrong", username=APP, password="not the password")
    world.service("wrong", "postgres", HOST, sql_postgres.started(), "db/wrong")
    said = refused(world, service="wrong", token=world.agent("wrong", "wrong"))
    assert "it did not take the login" in said
    assert "password authentication failed" not in said


def test_a_certificate_for_another_name_is_refused(world):
    world.service("elsewhere", "postgres", "other.test", sql_postgres.started(), "db/app")
    assert "certificate is for another name" in refused(
        world, service="elsewhere", token=world.agent("elsewhere", "elsewhere")
    )


def test_a_cancel_stops_the_statement_of_ones_own_session(world):
    with world.connect() as session:
        threading.Timer(0.3, session.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_an_idle_session_ends(world):
    databases = world.keyhole.broker.sessions._databases  # the limit of the whole world for a moment
    limits = databases.limits
    databases.limits = dataclasses.replace(limits, idle=1.0)
    try:
        with world.connect() as session:
            session.execute("SELECT 1")
            until(lambda: len(world.keyhole.broker.sessions) == 0)
            with pytest.raises(psycopg.OperationalError, match="idle for too long"):
                session.execute("SELECT 1")
    finally:
        databases.limits = limits


def test_there_are_no_more_sessions_than_may_be(world):
    databases = world.keyhole.broker.sessions._databases
    limits = databases.limits
    until(lambda: len(world.keyhole.broker.sessions) == 0)
    databases.limits = dataclasses.replace(limits, sessions=1)
    try:
        with world.connect():
            assert "rate_limited: there are as many sessions as may be" in refused(world)
    finally:
        databases.limits = limits


def test_why_tells_of_a_session_and_repeats_no_password_of_a_connection_string(world):
    question = {"method": "SESSION", "url": f"postgres://u:hunter2@{HOST}:{sql_postgres.started()}/shop"}
    answer = world.ask("update", "sys/why", question | {"service": "shop"})
    assert (answer["allowed"], answer["service"]) == (True, "shop")
    assert "hunter2" not in str(answer)
    assert not world.ask("update", "sys/why", {"method": "SESSION", "url": "postgres://nowhere.test"})["allowed"]


def test_a_session_ends_when_the_vault_is_sealed():
    with World(sql_postgres.ca_pem(), [HOST]) as world:
        world.secret("db/app", username=APP, password=APP_PASSWORD)
        world.service("shop", "postgres", HOST, sql_postgres.started(), "db/app")
        world.token = world.agent("coder", "shop")
        session = world.connect()
        world.ask("update", "sys/seal")
        with pytest.raises(psycopg.OperationalError, match="the vault was sealed"):
            session.execute("SELECT 1")
        assert "sealed" in refused(world)


@pytest.mark.parametrize("listener", ["postgres://0.0.0.0:6432", "oracle://127.0.0.1:1", "127.0.0.1:6432", "mysql://x"])
def test_a_listener_off_loopback_needs_tls_and_its_address_a_scheme(listener):
    with pytest.raises(KeyholeError, match="sql_listen"):
        Config(sql_listen=(listener,)).checked()
