"""Clients of PostgreSQL run unchanged against the listener, and find nothing but a server."""

import os
import subprocess

import psycopg
import pytest
import sqlalchemy

import sql_postgres
from sql_postgres import APP_PASSWORD


def psql(world, *words, database="shop", token="", **more):
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": token or world.token}
    where = ["-h", "127.0.0.1", "-p", str(world.postgres), "-U", "shop", "-X", *words, database]
    return subprocess.run(["psql", *where], check=False, env=env, capture_output=True, text=True, timeout=30, **more)


def test_psycopg_is_logged_in_as_the_user_of_the_secret_over_tls(world, shop):
    user, tls = shop.execute(
        "SELECT current_user, (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
    ).fetchone()
    assert (user, tls) == (sql_postgres.APP, True)
    assert shop.info.parameter_status("server_version").startswith(
        shop.execute("SHOW server_version").fetchone()[0][:2]
    )


def test_psql_reads_writes_and_shows_errors(world):
    made = psql(world, "-Atc", "INSERT INTO notes (text) VALUES ('of psql') RETURNING text")
    assert made.stdout.splitlines()[0] == "of psql", made.stderr
    failed = psql(world, "-c", "SELECT * FROM nothing_there")
    assert 'relation "nothing_there" does not exist' in failed.stderr


def test_sqlalchemy_works_with_a_url_that_has_the_token_only(world):
    url = sqlalchemy.URL.create("postgresql+psycopg", "shop", world.token, "127.0.0.1", world.postgres, "shop")
    engine = sqlalchemy.create_engine(url)
    notes = sqlalchemy.Table("notes", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        connection.execute(notes.insert(), [{"text": f"alchemy {n}"} for n in range(50)])
    with engine.connect() as connection:
        count = sqlalchemy.select(sqlalchemy.func.count()).where(notes.c.text.like("alchemy %"))
        assert connection.execute(count).scalar() == 50
    engine.dispose()


def test_copy_in_and_out_passes(shop):
    shop.execute("CREATE TEMP TABLE many (n int, text text)")
    with shop.cursor().copy("COPY many FROM STDIN") as copy:
        for n in range(5000):
            copy.write_row((n, "x" * 100))
    with shop.cursor().copy("COPY many TO STDOUT") as copy:
        assert sum(len(piece) for piece in copy) > 500_000


def test_a_large_value_and_a_large_result_pass(shop):
    value = os.urandom(3_000_000)
    assert shop.execute("SELECT %b::bytea", (value,), binary=True).fetchone()[0] == value
    rows = shop.execute("SELECT n, repeat('y', 200) FROM generate_series(1, 30000) n").fetchall()
    assert (len(rows), rows[-1]) == (30000, (30000, "y" * 200))


def test_prepared_statements_pipelines_and_server_side_cursors_pass(shop):
    for n in range(3):
        assert shop.execute("SELECT %s::int + 1", (n,), prepare=True).fetchone() == (n + 1,)
    with shop.pipeline():
        cursors = [shop.execute("SELECT %s::int", (n,)) for n in range(100)]
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))
    with shop.transaction(), shop.cursor(name="held") as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert sum(row[0] for row in cursor) == 500500


def test_notifications_pass_between_sessions(world, shop):
    shop.execute("LISTEN news")
    with world.connect() as other:
        other.execute("NOTIFY news, 'it works'")
    [note] = list(shop.notifies(timeout=10, stop_after=1))
    assert note.payload == "it works"


def test_parameters_of_the_client_reach_the_database(world):
    with world.connect(application_name="my app", options="-c statement_timeout=4321") as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("4321ms",)
        assert connection.execute("SHOW application_name").fetchone() == ("my app",)


def test_an_error_keeps_its_code_and_the_session_goes_on(shop):
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        shop.execute("INSERT INTO notes (id, text) VALUES (-1, 'a'), (-1, 'b')")
    assert raised.value.sqlstate == "23505"
    assert shop.execute("SELECT 1").fetchone() == (1,)


def test_the_password_does_not_come_back_in_rows_errors_or_notices(world, shop):
    mask = "*" * len(APP_PASSWORD)
    assert shop.execute("SELECT %s::text, %s::text", (APP_PASSWORD, APP_PASSWORD.encode().hex())).fetchone() == (
        mask,
        "*" * 2 * len(APP_PASSWORD),
    )
    with pytest.raises(psycopg.Error) as raised:
        shop.execute(f"SELECT '{APP_PASSWORD}'::int")
    assert raised.value.diag.message_primary == f'invalid input syntax for type integer: "{mask}"'
    notices = []
    shop.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    shop.execute(f"DO $$ BEGIN RAISE NOTICE 'it is {APP_PASSWORD}'; END $$")
    assert notices == [f"it is {mask}"]


def test_a_row_that_ends_as_the_password_begins_is_not_held_back(shop):
    for length in (1, 5, len(APP_PASSWORD) - 1):
        part = APP_PASSWORD[:length]
        assert len(shop.execute("SELECT %s::text", (part,)).fetchone()[0]) == length
        shop.execute("SELECT 1")


def test_a_session_is_one_intent_and_one_outcome_with_its_statements(world):
    token = world.agent("counted", "shop")
    with world.connect(token=token) as connection:
        for n in range(3):
            connection.execute("SELECT %s::int", (n,))
        connection.execute("SELECT 4; SELECT 5")
    records = [r for r in world.records("shop") if r["caller"] == "agent/counted"]
    while len(records) < 2:
        records = [r for r in world.records("shop") if r["caller"] == "agent/counted"]
    intent, outcome = records
    assert (intent["phase"], outcome["phase"], outcome["result"]) == ("intent", "outcome", "ok")
    assert (outcome["method"], outcome["host"], outcome["target"]) == (
        "POSTGRES",
        f"{sql_postgres.HOST}:{sql_postgres.started()}",
        "/shop",
    )
    assert outcome["statements"] == 4
    assert outcome["received"] > 100
    assert outcome["sent"] > 100
    assert "SELECT" not in str(records)
