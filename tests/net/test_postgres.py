"""PostgreSQL's protocol without a socket: following messages, and a login with servers that are not what they seem."""

import base64
import hashlib
import hmac
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhole.core.errors import BadRequestFraming, UpstreamUnreachable
from keyhole.net.postgres import messages
from keyhole.net.postgres.frames import OF_CLIENT, OF_SERVER, Frames
from keyhole.net.postgres.login import MAX_OPENING, Login, log_in
from keyhole.net.postgres.messages import message
from keyhole.net.postgres.scram import saslprep
from keyhole.net.refused import LoginRefused

PASSWORD = b"correct horse battery"
OK = (b"R", bytes(4))


def login(*, secure=True, end_point=b"", password=PASSWORD):
    return Login(b"app", password, ((b"database", b"shop"),), secure, end_point, b"n" * 18)


def talk(conversation, *heard):
    """What the client says to each message of the server, the startup message first."""
    return [next(conversation), *(conversation.send(each) for each in heard)]


def ask(code, rest=b""):
    return b"R", code.to_bytes(4) + rest


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(OF_SERVER)), st.binary(max_size=40)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_messages_are_followed_however_they_are_cut(sent, chance):
    stream = b"".join(message(bytes((kind,)), payload) for kind, payload in sent)
    ends = set(itertools.accumulate(len(payload) + 5 for _, payload in sent))
    frames, at = Frames(OF_SERVER), 0
    while at < len(stream):
        piece = stream[at : at + chance.randint(1, 30)]
        end = frames.follow(piece)
        inside = [e - at for e in ends if at < e <= at + len(piece)]
        assert end == max(inside, default=0)
        at += len(piece)
        assert frames.partial == (at not in ends)
    assert frames.seen.total() == len(sent)


@pytest.mark.parametrize(
    "data", [b"Q\xff\xff\xff\xff", b"Q\0\0\0\x03", b"Q\x40\0\0\0", b"\0", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"]
)
def test_what_is_no_message_is_refused_at_its_head(data):
    frames = Frames(OF_CLIENT)
    with pytest.raises(BadRequestFraming):
        list(map(frames.follow, map(bytes, zip(data, strict=True))))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_startup_bytes_are_anything_but_read_or_refused(rest):
    data = (len(rest) + 8).to_bytes(4) + messages.VERSION.to_bytes(4) + rest
    try:
        found = messages.read_startup(data)
    except BadRequestFraming:
        return
    assert messages.startup(found.parameters) == data


@pytest.mark.parametrize("length", [0, 7, 10_001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_startup_message_of_an_impossible_length_is_refused(length):
    with pytest.raises(BadRequestFraming):
        messages.startup_length(length.to_bytes(4))


def test_an_md5_password_is_what_postgresql_documents():
    inner = hashlib.md5(PASSWORD + b"app").hexdigest().encode()
    wanted = b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode() + b"\0"
    said = talk(log_in(login(secure=False)), ask(5, b"salt"))
    assert said[1] == message(b"p", wanted)


def test_a_password_in_clear_is_for_tls_only():
    assert talk(log_in(login()), ask(3))[1] == message(b"p", PASSWORD + b"\0")
    with pytest.raises(UpstreamUnreachable) as raised:
        talk(log_in(login(secure=False)), ask(3))
    assert PASSWORD.decode() not in str(raised.value)


class Server:
    """The server's side of SCRAM (RFC 5802), written from the RFC and not from the client."""

    def __init__(self, iterations=4096):
        self.iterations = iterations
        self.salt = b"0123456789abcdef"

    def challenge(self, first):
        mechanism, _, rest = first[5:].partition(b"\0")
        self.mechanism = mechanism
        text = rest[4:]
        self.header, self.bare = text.split(b",,")[0] + b",,", text.split(b",,")[1]
        self.nonce = self.bare.split(b"r=")[1] + b"server0123456789"
        self.first = b"r=%b,s=%b,i=%d" % (self.nonce, base64.b64encode(self.salt), self.iterations)
        return ask(11, self.first)

    def final(self, proof, password=PASSWORD):
        without = proof[5:].rpartition(b",p=")[0]
        self.binding = base64.b64decode(without.split(b",")[0][2:])
        salted = hashlib.pbkdf2_hmac("sha256", password, self.salt, self.iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        said = b",".join((self.bare, self.first, without))
        signature = hmac.digest(hashlib.sha256(client_key).digest(), said, "sha256")
        shown = base64.b64decode(proof.rpartition(b",p=")[2])
        self.proved = bytes(a ^ b for a, b in zip(shown, signature, strict=True)) == client_key
        key = hmac.digest(salted, b"Server Key", "sha256")
        return ask(12, b"v=" + base64.b64encode(hmac.digest(key, said, "sha256")))


@pytest.mark.parametrize(
    ("end_point", "offered", "mechanism", "binding"),
    [
        (b"", b"SCRAM-SHA-256\0\0", b"SCRAM-SHA-256", b"n,,"),
        (b"hash", b"SCRAM-SHA-256\0\0", b"SCRAM-SHA-256", b"y,,"),
        (b"hash", b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", b"SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,hash"),
    ],
)
def test_scram_proves_the_password_and_binds_it_to_the_certificate(end_point, offered, mechanism, binding):
    server, conversation = Server(), log_in(login(end_point=end_point))
    [_, first] = talk(conversation, ask(10, offered))
    proof = conversation.send(server.challenge(first))
    assert conversation.send(server.final(proof)) == b""
    assert (server.mechanism, server.binding, server.proved) == (mechanism, binding, True)
    assert conversation.send(OK) == b""
    for heard in ((b"S", b"TimeZone\0UTC\0"), (b"K", bytes(8))):
        assert conversation.send(heard) == b""
    with pytest.raises(StopIteration) as done:
        conversation.send((b"Z", b"I"))
    assert done.value.value.opening == message(b"S", b"TimeZone\0UTC\0")


def test_a_server_that_does_not_know_the_password_is_found_out():
    server, conversation = Server(), log_in(login())
    [_, first] = talk(conversation, ask(10, b"SCRAM-SHA-256\0\0"))
    proof = conversation.send(server.challenge(first))
    with pytest.raises(UpstreamUnreachable, match="did not prove"):
        conversation.send(server.final(proof, password=b"a guess"))


def test_a_server_that_leaves_its_proof_out_is_found_out():
    server, conversation = Server(), log_in(login())
    [_, first] = talk(conversation, ask(10, b"SCRAM-SHA-256\0\0"))
    conversation.send(server.challenge(first))
    with pytest.raises(UpstreamUnreachable, match="did not prove"):
        conversation.send(OK)


@pytest.mark.parametrize("iterations", [1, 4095, 1_000_001, 2**31 - 1])
def test_scram_neither_gives_the_password_away_cheaply_nor_computes_without_end(iterations):
    server, conversation = Server(iterations), log_in(login())
    [_, first] = talk(conversation, ask(10, b"SCRAM-SHA-256\0\0"))
    with pytest.raises(UpstreamUnreachable, match="iterations"):
        conversation.send(server.challenge(first))


@pytest.mark.parametrize(
    "heard",
    [
        [ask(11, b"r=x,s=x,i=4096")],
        [ask(10, b"\0")],
        [ask(7)],
        [(b"D", b"")],
        [(b"R", b"")],
        [OK, (b"D", b"")],
        [OK, (b"Z", b"II")],
        [(b"N", b"")] * 9,
        [OK, *[(b"N", bytes(60_000))] * (MAX_OPENING // 60_000 + 1)],
    ],
)
def test_a_server_that_says_what_it_must_not_ends_the_login(heard):
    with pytest.raises(UpstreamUnreachable):
        talk(log_in(login()), *heard)


def test_a_refusal_says_its_code_and_none_of_the_servers_words():
    refusal = messages.error("28P01", "the password is hunter2")[5:]
    with pytest.raises(LoginRefused) as raised:
        talk(log_in(login()), (b"E", refusal))
    assert raised.value.state == "28P01"
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("given_", "prepared"),
    [
        ("I\u00adX".encode(), b"IX"),  # RFC 4013, section 3
        ("\u00aa".encode(), b"a"),
        ("\u2168".encode(), b"IX"),
        ("\u0007é".encode(), "\u0007é".encode()),  # prohibited: taken as it is
        ("\u06271".encode(), "\u06271".encode()),  # of two directions: the same
        (b"\xff", b"\xff"),
    ],
)
def test_passwords_are_prepared_as_the_server_does(given_, prepared):
    assert saslprep(given_) == prepared


def test_following_a_long_stream_keeps_none_of_it():
    frames = Frames(OF_SERVER)
    head = b"D" + (50_000_004).to_bytes(4)
    frames.follow(head)
    for _ in range(50):
        assert frames.follow(bytes(999_999)) == 0
    assert frames.follow(bytes(50)) == 50
    assert not frames.partial
