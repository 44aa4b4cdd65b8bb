"""MySQL's protocol without a socket: following packets, and logins with servers that real ones cannot stand for."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhole.core.errors import BadRequestFraming, PolicyDenied, UpstreamUnreachable
from keyhole.net.mysql import packets
from keyhole.net.mysql.login import Login, log_in
from keyhole.net.mysql.packets import Greeting, Response, packet
from keyhole.net.mysql.talk import MysqlTalk
from keyhole.net.refused import LoginRefused

PASSWORD = b"correct horse battery"
NONCE = bytes(range(1, 21))
OK = b"\0\0\0\2\0\0\0"


def login(*, secure=True):
    return Login(b"app", PASSWORD, b"shop", packets.PASSED, 45, b"", secure)


def server(plugin=packets.NATIVE):
    return Greeting(1, packets.PASSED | packets.OWN | packets.SSL, NONCE, plugin)


def talk(conversation, *heard):
    return [next(conversation), *(conversation.send(each) for each in heard)]


def finish(conversation, heard=OK):
    with pytest.raises(StopIteration) as done:
        conversation.send(heard)
    return done.value.value


def proves_caching(answer):
    """What a server does that stores SHA256(SHA256(password)), by the documentation of the plugin."""
    stored = hashlib.sha256(hashlib.sha256(PASSWORD).digest()).digest()
    inner = bytes(a ^ b for a, b in zip(answer, hashlib.sha256(stored + NONCE).digest(), strict=True))
    return hashlib.sha256(inner).digest() == stored


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12), st.randoms(use_true_random=False))
def test_packets_of_the_server_are_followed_however_they_are_cut(payloads, chance):
    stream, ends = b"", set()
    for number, payload in enumerate(payloads):
        stream += packet(number, payload)
        ends.add(len(stream))
    session, at = MysqlTalk(), 0
    while at < len(stream):
        piece = stream[at : at + chance.randint(1, 20)]
        inside = [end - at for end in ends if at < end <= at + len(piece)]
        assert session.of_server(piece) == max(inside, default=0)
        at += len(piece)
        assert bool(session.farewell(BadRequestFraming("x"))) is False


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_statements_are_counted_however_they_are_cut(chance):
    commands = [b"\x03SELECT 1", b"\x16SELECT ?", b"\x17" + bytes(9), b"\x0e", b"\x03", b"\x01"]
    stream = b"".join(packet(0, command) for command in commands)
    session = MysqlTalk()
    while stream:
        cut = chance.randint(1, 9)
        session.of_client(stream[:cut])
        stream = stream[cut:]
    assert (session.statements, session.parting, session.sending) == (3, True, False)


def test_what_goes_on_after_a_full_packet_is_no_command():
    session = MysqlTalk()
    session.of_client(packets.FULL.to_bytes(3, "little") + b"\0\x03" + bytes(packets.FULL - 1))
    session.of_client(packet(1, b"\x11 more of the query"))
    assert session.statements == 1
    with pytest.raises(PolicyDenied):
        session.of_client(packet(0, b"\x11root\0"))


@pytest.mark.parametrize("sent", [packet(1, b"a file"), packet(3, b""), packet(0, b"\x12"), packet(0, b"\x1e")])
def test_files_and_replication_need_the_services_leave(sent):
    with pytest.raises(PolicyDenied):
        MysqlTalk().of_client(sent)
    MysqlTalk(replication=True, files=True).of_client(sent)


@pytest.mark.parametrize("sent", [packet(0, b""), packet(0, b"\x42"), b"GET \x99"])
def test_what_is_no_command_is_refused(sent):
    with pytest.raises((BadRequestFraming, PolicyDenied)):
        MysqlTalk().of_client(sent)


def test_the_proof_of_caching_sha2_is_what_the_server_can_check():
    conversation = log_in(login(), server(packets.CACHING))
    [said] = talk(conversation)
    read = packets.read_response(said)
    assert (read.user, read.database, read.plugin) == (b"app", b"shop", packets.CACHING)
    assert proves_caching(read.answer)
    assert conversation.send(b"\x01\x03") == b""
    assert finish(conversation) == OK


def test_the_password_is_said_under_tls_only():
    assert talk(log_in(login(), server(packets.CACHING)), b"\x01\x04")[1] == PASSWORD + b"\0"
    for heard in (b"\x01\x04", packets.switch(packets.CLEAR, b"")):
        with pytest.raises(UpstreamUnreachable, match="in clear"):
            talk(log_in(login(secure=False), server(packets.CACHING)), heard)


def test_a_server_may_ask_in_another_way():
    conversation = log_in(login(), server(packets.NATIVE))
    assert proves_caching(talk(conversation, packets.switch(packets.CACHING, NONCE))[1])
    assert finish(conversation) == OK


@pytest.mark.parametrize(
    "heard",
    [b"", b"\xfe", b"\x01\x04", b"\x02", packets.switch(b"dialog", NONCE), packets.switch(packets.NATIVE, b"short")],
)
def test_a_server_that_says_what_it_must_not_ends_the_login(heard):
    with pytest.raises(UpstreamUnreachable):
        talk(log_in(login(), server()), heard)


def test_a_refusal_says_its_code_and_none_of_the_servers_words():
    with pytest.raises(LoginRefused) as raised:
        talk(log_in(login(), server()), packets.error(1045, "28000", "the password is hunter2"))
    assert raised.value.state == "28000"
    assert "hunter2" not in str(raised.value)


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_of_a_client_are_anything_but_read_or_refused(data):
    for payload in (data, bytes.fromhex("0082b8000000000100000000") + data):
        try:
            packets.read_response(payload)
        except BadRequestFraming:
            continue


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_of_a_server_are_anything_but_read_or_refused(data):
    for payload in (data, b"\x0a8.0.0\0" + data):
        try:
            packets.read_greeting(payload)
        except UpstreamUnreachable:
            continue


def test_a_client_reads_our_greeting_and_we_its_answer():
    read = packets.read_greeting(packets.greeting(7, NONCE, tls=True))
    assert (read.thread, read.nonce, read.plugin) == (7, NONCE, packets.NATIVE)
    flags = packets.OWN | packets.CONNECT_WITH_DB | packets.CONNECT_ATTRS
    said = Response(flags, 45, b"user", b"a" * 20, b"shop", packets.NATIVE, b"attributes" * 40)
    assert packets.read_response(packets.response(said)) == said
