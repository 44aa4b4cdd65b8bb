"""Clients of MySQL and MariaDB run unchanged against the listener, their sessions end, and impostors learn nothing."""

import contextlib
import os
import socket
import ssl
import subprocess
import time

import pymysql
import pytest
import sqlalchemy
import trustme

import mariadb_server
from faces.sql.impostor import Impostor
from keyhole.app import start_sql
from keyhole.net.mysql import packets
from keyhole.net.mysql.packets import packet
from sql_postgres import APP, APP_PASSWORD, HOST

SECONDS = 60
GREETING = packet(0, packets.greeting(7, b"n" * 20, tls=False))
OK = b"\0\0\0\2\0\0\0"


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def session(maria):
    with maria.connect_mysql() as connection:
        yield connection


def ask(session, query, *values):
    with session.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def refused(maria, **options):
    with pytest.raises(pymysql.err.OperationalError) as raised:
        maria.connect_mysql(**options)
    return raised.value.args


def test_pymysql_is_logged_in_as_the_user_of_the_secret_over_tls(session):
    assert ask(session, "SELECT CURRENT_USER(), DATABASE()") == ((f"{APP}@%", "shop"),)
    assert ask(session, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
    assert ask(session, "SELECT %s, HEX(%s)", APP_PASSWORD, APP_PASSWORD) == (
        ("*" * len(APP_PASSWORD), "*" * 2 * len(APP_PASSWORD)),
    )


def test_the_client_of_mariadb_needs_no_option(maria):
    done = subprocess.run(
        ["mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", str(maria.mysql), "-u", "maria", "-N",
         "-e", "PREPARE p FROM 'SELECT ? + 1'; SET @a = 1; EXECUTE p USING @a; SELECT nothing FROM nowhere"],
        env={"PATH": os.environ["PATH"], "MYSQL_PWD": maria.token},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.stdout == "2\n"
    assert "ERROR 1146 (42S02)" in done.stderr


def test_sqlalchemy_works_with_a_url_that_has_the_token_only(maria):
    url = sqlalchemy.URL.create("mysql+pymysql", "maria", maria.token, "127.0.0.1", maria.mysql, "shop")
    engine = sqlalchemy.create_engine(url)
    notes = sqlalchemy.Table("notes", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        connection.execute(notes.insert(), [{"note": f"alchemy {n}"} for n in range(20)])
        assert connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(notes)).scalar() >= 20
    engine.dispose()


def test_several_statements_large_rows_and_large_results_pass(maria):
    with maria.connect_mysql(client_flag=packets.MULTI_STATEMENTS) as session, session.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
        cursor.execute("SELECT seq, REPEAT('y', 200) FROM seq_1_to_30000")
        assert len(cursor.fetchall()) == 30000
        cursor.execute("SELECT LENGTH(%s)", (b"x" * 3_000_000,))
        assert cursor.fetchall() == ((3_000_000,),)


def test_a_packet_longer_than_one_can_be_passes_in_both_directions(maria):
    with mariadb_server.root() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 67108864")
    with maria.connect_mysql(max_allowed_packet=67108864) as session:
        value = "z" * 17_000_000
        assert ask(session, "SELECT %s", value) == ((value,),)


def test_a_session_is_one_intent_and_one_outcome_with_its_statements(maria):
    token = maria.agent("counted", "maria")
    with maria.connect_mysql(token=token) as session:
        before = 2  # what PyMySQL says of itself: SET AUTOCOMMIT, and the character set
        for _ in range(3):
            ask(session, "SELECT 1")

    def of_it():
        return [r for r in maria.records("maria") if r["caller"] == "agent/counted"]

    until(lambda: len(of_it()) == 2)
    intent, outcome = of_it()
    assert (intent["method"], intent["target"]) == ("MYSQL", "/shop")
    assert outcome["result"] == "ok"
    assert 3 <= outcome["statements"] <= 3 + before


def test_each_session_has_a_user_of_its_own_that_goes_with_it(maria):
    maria.ask("update", "sys/mounts/database", {"type": "database"})
    maria.ask(
        "update",
        "database/config/maria",
        {
            "plugin_name": "mysql-database-plugin",
            "connection_url": mariadb_server.started(),
            "username": mariadb_server.ADMIN,
            "password": mariadb_server.PASSWORD,
            "allowed_roles": "*",
        },
    )
    make = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON shop.* TO '{{name}}'@'%'"
    maria.ask("update", "database/roles/reader", {"db_name": "maria", "creation_statements": make})
    maria.service("leased", "mysql", HOST, mariadb_server.port(), "/database/creds/reader", database="shop")
    with maria.connect_mysql("leased", maria.agent("renter", "leased")) as session:
        [[name]] = ask(session, "SELECT SUBSTRING_INDEX(USER(), '@', 1)")
        assert name in mariadb_server.users("v-")
    until(lambda: name not in mariadb_server.users("v-"))


@pytest.mark.parametrize("reason", ["token", "grant"])
def test_a_session_ends_with_what_it_was_opened_by_and_so_does_its_statement(maria, reason):
    token = maria.agent(f"agent-{reason}", "maria")
    session = maria.connect_mysql(token=token)
    [[thread]] = ask(session, "SELECT CONNECTION_ID()")
    if reason == "token":
        maria.ask("update", "auth/token/revoke", {"token": token})
    else:
        maria.ask("delete", f"agents/agent-{reason}/services/maria")
    with pytest.raises(pymysql.err.OperationalError) as raised:
        ask(session, "SELECT SLEEP(60)")
    code = {"token": "revoked", "grant": "taken back"}[reason]
    assert raised.value.args[0] == 1927
    assert code in raised.value.args[1]

    def gone():
        with mariadb_server.root() as cursor:
            cursor.execute("SELECT 1 FROM information_schema.processlist WHERE id = %s", (thread,))
            return not cursor.fetchall()

    until(gone)


def test_refusals_have_the_codes_that_clients_know(maria):
    assert refused(maria, token="wrong")[0] == 1045
    assert "policy_denied" in refused(maria, database="mysql")[1]
    maria.service("elsewhere", "mysql", "other.test", mariadb_server.port(), "db/app")
    token = maria.agent("elsewhere", "elsewhere")
    code, text = refused(maria, service="elsewhere", token=token)
    assert code == 1429
    assert "certificate is for another name" in text
    maria.service("any", "mysql", HOST, mariadb_server.port(), "db/app")
    token = maria.agent("any", "any")
    assert refused(maria, service="any", token=token, database="nowhere")[0] == 1049


@pytest.mark.parametrize(
    ("command", "said"),
    [(b"\x11root\0\0\0", "a session stays that of its user"), (b"\x12" + bytes(10), "lets nobody replicate")],
)
def test_commands_that_leave_the_session_are_refused(session, command, said):
    session._execute_command(command[0], command[1:])
    with pytest.raises(pymysql.err.OperationalError, match=said):
        session._read_ok_packet()


def test_no_file_of_the_client_leaves_for_the_database(maria, tmp_path):
    (tmp_path / "file").write_text("what the agent can read\n")
    with maria.connect_mysql(local_infile=True) as session, pytest.raises(pymysql.err.OperationalError):
        ask(session, f"LOAD DATA LOCAL INFILE '{tmp_path / 'file'}' INTO TABLE notes")


def hostile(maria, impostor, name, **options):
    maria.service(name, "mysql", HOST, impostor.port, "db/app", sslmode="disable")
    return maria.connect_mysql(name, maria.agent(f"of-{name}", name), **options)


def test_a_database_that_asks_for_a_file_unasked_gets_none(maria, tmp_path):
    (tmp_path / "file").write_text("what the agent can read\n")
    asks = packet(1, b"\xfb" + str(tmp_path / "file").encode())
    with Impostor(GREETING, None, packet(2, OK), None, packet(1, OK), None, asks) as impostor:
        session = hostile(maria, impostor, "thief", local_infile=True)
        with pytest.raises(pymysql.err.Error):
            ask(session, "SELECT 1")
        session.close() if session.open else None
    assert b"what the agent can read" not in impostor.heard


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        ("clear", [GREETING, None, packet(2, packets.switch(packets.CLEAR, b""))], "in clear"),
        ("full", [GREETING, None, packet(2, packets.switch(packets.CACHING, b"n" * 20)), None, packet(4, b"\1\4")],
         "in clear"),
        ("dialog", [GREETING, None, packet(2, packets.switch(b"dialog", b"Password: "))], "not known here"),
        ("huge", [b"\xff\xff\xff\0"], "no server of MySQL"),
        ("postgres", [b"E\0\0\0\x10SFATAL\0\0\0"], "no server of MySQL"),
        ("old", [packet(0, b"\x09" + bytes(80))], "no server of MySQL"),
        ("loop", [GREETING, None] + [packet(2 + 2 * n, packets.switch(packets.NATIVE, b"n" * 20)) for n in range(9)],
         "an end of the login"),
    ],
)  # fmt: skip
def test_a_hostile_database_learns_nothing(maria, name, script, said):
    with Impostor(*script) as impostor, pytest.raises(pymysql.err.OperationalError, match=said):
        hostile(maria, impostor, name)
    assert APP_PASSWORD.encode() not in impostor.heard


def test_a_database_without_tls_is_not_told_who_logs_in(maria):
    with Impostor(GREETING) as impostor:
        maria.service("bare", "mysql", HOST, impostor.port, "db/app")
        with pytest.raises(pymysql.err.OperationalError, match="offers no TLS"):
            maria.connect_mysql("bare", maria.agent("of-bare", "bare"))
    assert impostor.heard == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\x01",
        packet(2, b""),
        packet(1, bytes(40)),
        packet(1, b"\x00\x82\x28\x00" + bytes(28) + b"no end"),
        packet(1, packets.ssl_request(packets.SSL | packets.OWN, 45)),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_client_that_does_not_speak_the_protocol_is_turned_away(maria, sent):
    with socket.create_connection(("127.0.0.1", maria.mysql), 20) as sock:
        sock.sendall(sent)
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                data += piece
    assert b"#08S01" in data


@pytest.mark.parametrize("plugin", [packets.CACHING, packets.CLEAR])
def test_a_listener_with_tls_takes_tokens_under_it_only(maria, plugin):
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).configure_cert(context)

    async def start():
        return await start_sql(maria.keyhole, "mysql://127.0.0.1:0", tls=context)

    server = maria.run(start())
    port = int(maria.keyhole.sql_urls[-1].rpartition(":")[2])
    trust = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
    try:
        where = {"host": "127.0.0.1", "port": port, "user": "maria", "password": maria.token}
        with pytest.raises(pymysql.err.OperationalError, match="a token is shown over TLS only"):
            pymysql.connect(**where, ssl_disabled=True)
        session = pymysql.Connection(**where, ssl=trust, defer_connect=True)
        if plugin == packets.CACHING:
            given = session._get_server_information

            def information():
                given()
                session._auth_plugin_name = plugin.decode()

            session._get_server_information = information
        session.connect()
        assert ask(session, "SELECT 1") == ((1,),)
        session.close()
    finally:
        maria.run(server.close(1.0))
