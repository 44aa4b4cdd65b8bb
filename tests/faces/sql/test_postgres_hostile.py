"""Clients and databases that do not keep to the protocol: bounded, told, and none the wiser."""

import asyncio
import contextlib
import socket

import psycopg
import pytest

import sql_postgres
from faces.sql.impostor import Impostor
from keyhole.net.postgres import messages
from keyhole.net.postgres.messages import message
from sql_postgres import APP, APP_PASSWORD
from sql_world import World

READY = messages.AUTHENTICATION_OK + message(b"K", bytes(8)) + message(b"Z", b"I")


@contextlib.contextmanager
def client(world):
    with socket.create_connection(("127.0.0.1", world.postgres), 20) as sock:
        yield sock


def everything(sock):
    """All that comes until the connection ends, in whatever way."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data


def logged_in(sock, world):
    """Log in by hand, and read up to the first ReadyForQuery."""
    sock.sendall(messages.startup([(b"user", b"shop"), (b"database", b"shop")]))
    sock.sendall(message(b"p", world.token.encode() + b"\0"))
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        data += sock.recv(65536)
    return data


@pytest.mark.parametrize(
    "sent",
    [
        b"\x7f\xff\xff\xff" + bytes(100),
        b"\0\0\0\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        messages.request(messages.SSL_REQUEST) * 4,
        messages.request(messages.VERSION, b"user\0a\0user\0b\0\0"),
        messages.request(messages.VERSION, b"user\0shop"),
        messages.request(0x0002_0000, b"user\0a\0\0"),
        messages.request(messages.VERSION, b"".join(b"p%d\0v\0" % n for n in range(65)) + b"\0"),
        messages.startup([(b"user", b"shop"), (b"database", b"shop")]) + b"p\xff\xff\xff\xff",
        messages.startup([(b"user", b"shop"), (b"database", b"shop")]) + message(b"Q", b"SELECT 1\0"),
    ],
)
def test_a_client_that_does_not_speak_the_protocol_is_turned_away(world, sent):
    with client(world) as sock:
        sock.sendall(sent)
        assert b"C08P01\0" in everything(sock)


def test_a_client_that_stays_silent_or_stops_in_the_middle_is_not_waited_for():
    with World(sql_postgres.ca_pem(), [], head_timeout=0.5) as world:
        for begun in (b"", b"\0\0", messages.startup([(b"user", b"shop")])):
            with client(world) as sock:
                sock.sendall(begun)
                everything(sock)  # comes to an end


def test_more_clients_than_may_be_are_turned_away_and_others_served(world):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(client(world))
        with world.connect() as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "sent", [b"?\0\0\0\x04", b"Q\0\0\0\x03", b"Q\x7f\0\0\0", message(b"p", b"again\0"), b"\x16\x03\x01\x02\x00"]
)
def test_a_session_that_leaves_the_protocol_ends_before_the_database_sees_it(world, sent):
    with client(world) as sock:
        logged_in(sock, world)
        sock.sendall(sent)
        assert b"FATAL" in everything(sock)


def test_a_client_that_wants_a_newer_protocol_is_told_which_there_is(world):
    with client(world) as sock:
        body = b"user\0shop\0database\0shop\0_pq_.new\0x\0\0"
        sock.sendall(messages.request(0x0003_0002, body))
        sock.sendall(message(b"p", world.token.encode() + b"\0"))
        data = sock.recv(65536)
        while not data.endswith(b"Z\0\0\0\x05I"):
            data += sock.recv(65536)
        assert data.startswith(message(b"v", bytes(4) + b"\0\0\0\x01_pq_.new\0"))


def test_a_cancel_request_with_a_key_that_nobody_has_does_nothing(world):
    with client(world) as sock:
        sock.sendall(messages.request(messages.CANCEL_REQUEST, b"12345678"))
        assert b"policy_denied" in everything(sock)


def test_a_cancel_request_for_nobody_here_is_passed_to_the_other_workers_of_the_server(world, monkeypatch):
    asked = []

    async def elsewhere(token, key, _remote):
        asked.append((token, key))

    monkeypatch.setattr(world.keyhole.broker.sessions, "elsewhere", elsewhere)
    with client(world) as sock:
        sock.sendall(messages.request(messages.CANCEL_REQUEST, b"12345678"))
        assert everything(sock) == b""
    assert asked == [(None, b"12345678")]


def test_the_key_of_the_database_itself_is_not_what_the_client_gets(world):
    with client(world) as sock, sql_postgres.admin() as admin:
        data = logged_in(sock, world)
        key = data[data.index(b"K\0\0\0\x0c") + 5 :][:4]
        pids = {pid for (pid,) in admin.execute("SELECT pid FROM pg_stat_activity").fetchall()}
        assert int.from_bytes(key) not in pids


def through(world, impostor, name, **how):
    world.service(name, "postgres", sql_postgres.HOST, impostor.port, "db/app", **how)
    return world.connect(name, world.agent(f"of-{name}", name))


@pytest.mark.parametrize(
    ("name", "script", "how", "said"),
    [
        ("no-tls", [None, b"N"], {}, "offers no TLS"),
        ("stuffed", [None, b"S" + READY], {}, "said something before TLS began"),
        ("no-handshake", [None, b"S", None, b"HTTP/1.1 400 Bad Request\r\n\r\n"], {}, "TLS"),
        ("clear", [None, message(b"R", b"\0\0\0\x03")], {"sslmode": "disable"}, "asks for the password in clear"),
        ("huge", [None, b"R\x7f\xff\xff\xff"], {"sslmode": "disable"}, "what answers is no PostgreSQL"),
        ("hangs-up", [None, b"R\0\0", ...], {"sslmode": "disable"}, "closed the connection before the session"),
        ("gss", [None, message(b"R", b"\0\0\0\x07")], {"sslmode": "disable"}, "a way of logging in that is not known"),
    ],
)
def test_a_hostile_database_learns_nothing(world, name, script, how, said):
    with Impostor(*script) as impostor, pytest.raises(psycopg.OperationalError, match=said):
        through(world, impostor, name, **how)
    assert APP_PASSWORD.encode() not in impostor.heard
    if not how:
        assert APP.encode() not in impostor.heard


@pytest.mark.parametrize("garbage", [b"?\0\0\0\x04", b"D\xff\xff\xff\xff", b"HTTP/1.1 200 OK\r\n"])
def test_a_database_that_leaves_the_protocol_ends_the_session(world, garbage):
    with Impostor(None, READY, None, garbage) as impostor:
        session = through(world, impostor, f"odd{garbage[0]}", sslmode="disable")
        with pytest.raises(psycopg.OperationalError, match="broke its protocol"):
            session.execute("SELECT 1")


def test_a_question_for_a_password_within_a_session_gets_none(world):
    """A child has no password of the database, and what it would send as one goes nowhere."""
    with Impostor(None, READY, None, message(b"R", b"\0\0\0\x03")) as impostor:
        session = through(world, impostor, "asks-late", sslmode="disable")
        with pytest.raises(psycopg.OperationalError, match="broke its protocol"):
            session.execute("SELECT 1")
    assert world.token.encode() not in impostor.heard


def test_a_slow_reader_holds_the_database_back_and_memory_stays(world):
    async def buffered():
        return [len(s.stream._wire.buffer) for s in world.keyhole.broker.sessions._open if s.stream is not None]

    with client(world) as sock:
        logged_in(sock, world)
        sock.sendall(message(b"Q", b"SELECT repeat('z', 1000) FROM generate_series(1, 200000)\0"))
        for _ in range(20):
            world.run(asyncio.sleep(0.02))
            assert all(size < 1_000_000 for size in world.run(buffered()))
