"""HTTP Digest against the examples of the RFCs and a server of a few lines that checks every answer."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Heard, Message
from keyhole.injections import Terms, inject
from keyhole.injections.challenges import parse_challenges

LOGIN = {"username": b"Mufasa", "password": b"Circle of Life"}
HOW = Inject.from_data({"kind": "digest"})


def message(target: bytes = b"/dir/index.html", method: str = "GET", body: bytes | None = None) -> Message:
    sdk = (b"authorization", b'Digest username="Mufasa", response="made with a placeholder"')
    return Message(method, "https", "a.test", 443, target, [sdk], content=body)


def refused(*challenges: bytes) -> Heard:
    return Heard(401, [(b"www-authenticate", challenge) for challenge in challenges])


def parameters(content: bytes) -> dict[str, str]:
    assert content.startswith(b"Digest ")
    found = re.findall(r'([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))', content[7:].decode())
    assert len(found) == len({name: 1 for name, _, _ in found})
    return {name: re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in found}


RFC_7616 = (
    b'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=%b, '
    b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
RFC_2617 = (
    b'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
    b'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)


@pytest.mark.parametrize(
    ("challenges", "cnonce", "password", "response"),
    [
        (
            [RFC_7616 % b"SHA-256", RFC_7616 % b"MD5"],
            "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            b"Circle of Life",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
        (
            [RFC_7616 % b"MD5"],
            "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            b"Circle of Life",
            "8ca523f5e9506fed4657c9700eebdbec",
        ),
        ([RFC_2617], "0a4f113b", b"Circle Of Life", "6629fae49393a05397450978507c4ef1"),
    ],
)
def test_examples_of_the_rfcs(monkeypatch, challenges, cnonce, password, response) -> None:
    monkeypatch.setattr("keyhole.injections.digest.secrets.token_hex", lambda _: cnonce)
    steps = inject(message(), HOW, Terms({**LOGIN, "password": password}))
    assert next(steps).get(b"authorization") is None
    answer = steps.send(refused(*challenges))
    assert parameters(answer.get(b"authorization"))["response"] == response
    assert response.encode() in answer.forms


@dataclass
class Server:
    """Knows one login, and gives nonces that it forgets after a while."""

    user: str
    password: bytes
    algorithm: str = "SHA-256"
    qop: str = "auth"
    extra: str = ""
    uses: int = 1000
    next_nonce: bool = False
    says_stale: bool = True
    nonces: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    made: int = 0

    def hash(self, data: bytes) -> str:
        return hashlib.new(self.algorithm.removesuffix("-sess").replace("-", ""), data).hexdigest()

    def nonce(self) -> str:
        self.made += 1
        made = base64.b64encode(b"nonce %d" % self.made).decode()
        self.nonces[made] = 0
        return made

    def challenge(self, *, stale: bool) -> Heard:
        qop = f', qop="{self.qop}"' if self.qop else ""
        said = ", stale=TRUE" if stale and self.says_stale else ""
        text = (
            f'Digest realm="a \\"realm\\"", nonce="{self.nonce()}"{qop}, algorithm={self.algorithm}{said}{self.extra}'
        )
        return refused(b'Basic realm="x", Newer token68==', text.encode())

    def hear(self, sent: Message) -> Heard:
        self.asked += 1
        shown = sent.get(b"authorization")
        if shown is None:
            return self.challenge(stale=False)
        given = parameters(shown)
        realm, nonce = given["realm"], given["nonce"]
        if self.nonces.get(nonce, self.uses) >= self.uses:
            return self.challenge(stale=True)
        assert realm == 'a "realm"'
        assert given["uri"].encode() == sent.target
        name = unquote(given["username*"].removeprefix("UTF-8''")) if "username*" in given else given["username"]
        known = self.hash(f"{self.user}:{realm}".encode()) if given.get("userhash") == "true" else self.user
        if self.qop:
            self.nonces[nonce] += 1
            assert int(given["nc"], 16) == self.nonces[nonce]
        ha1 = self.hash(f"{self.user}:{realm}:".encode() + self.password)
        if self.algorithm.endswith("-sess"):
            ha1 = self.hash(f"{ha1}:{nonce}:{given['cnonce']}".encode())
        a2 = f"{sent.method}:{given['uri']}"
        if given.get("qop") == "auth-int":
            a2 += f":{self.hash(sent.content or b'')}"
        between = f"{nonce}:{given['nc']}:{given['cnonce']}:{given['qop']}" if self.qop else nonce
        if name != known or given["response"] != self.hash(f"{ha1}:{between}:{self.hash(a2.encode())}".encode()):
            return self.challenge(stale=False)
        info = [(b"authentication-info", f'nextnonce="{self.nonce()}"'.encode())] if self.next_nonce else []
        return Heard(200, info)

    def serve(self, kept: dict, sent: Message | None = None, **values: bytes) -> int:
        steps = inject(
            sent or message(), HOW, Terms(values or {"value": self.user.encode() + b":" + self.password}, 0, kept)
        )
        asking = next(steps)
        while True:
            heard = self.hear(asking)
            try:
                asking = steps.send(heard)
            except StopIteration:
                return heard.status


@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"])
@pytest.mark.parametrize("qop", ["auth", "auth-int", "", "auth-int,auth"])
@pytest.mark.parametrize("extra", ["", ", userhash=true, charset=UTF-8", ', opaque="\\"o\\\\"'])
def test_every_kind_of_challenge_is_answered_and_a_kept_one_beforehand(algorithm, qop, extra) -> None:
    server = Server("bot", b"pass:w\xc3\xb6rd", algorithm, qop, extra)
    kept: dict = {}
    bodies = [None, b"", b"\0\xff body"]
    for number, body in enumerate(bodies):
        assert server.serve(kept, message(b"/x?a=1,%22b%22", "POST", body)) == 200
        assert server.asked == number + 2


def test_stale_nonce_is_replaced_once_and_a_wrong_password_is_not_tried_again() -> None:
    server = Server("bot", b"password", uses=1)
    kept: dict = {}
    for number in range(3):
        assert server.serve(kept) == 200
        assert server.asked == 2 * (number + 1)
    silent = Server("bot", b"password", uses=2, says_stale=False)
    kept = {}
    assert [silent.serve(kept) for _ in range(5)] == [200] * 5
    wrong = Server("bot", b"password")
    kept = {}
    assert wrong.serve(kept, value=b"bot:other-password") == 401
    assert wrong.asked == 2
    assert wrong.serve(kept, value=b"bot:other-password") == 401
    assert wrong.asked == 4


def test_nonce_that_the_server_announces_is_used_next() -> None:
    server = Server("bot", b"password", uses=1, next_nonce=True)
    kept: dict = {}
    assert [server.serve(kept) for _ in range(4)] == [200] * 4
    assert server.asked == 5


def test_kept_challenge_is_of_one_server() -> None:
    first, second = Server("bot", b"password"), Server("bot", b"password")
    kept: dict = {}
    other = message()
    other.host = "b.test"
    assert (first.serve(kept), second.serve(kept, other)) == (200, 200)
    assert (first.asked, second.asked) == (2, 2)


def test_user_name_beyond_ascii_goes_as_the_server_takes_it() -> None:
    user = "J\u00e4s\u00f8n"
    assert Server(user, b"password", extra=", charset=UTF-8").serve({}) == 200
    assert Server(user, b"password", extra=", userhash=true").serve({}) == 200
    with pytest.raises(InvalidRequest) as caught:
        Server(user, b"password").serve({})
    assert user not in str(caught.value)


@pytest.mark.parametrize(
    "challenge",
    [
        b'Basic realm="x"',
        b'Digest realm="x", nonce="n", algorithm=SHA-512-256, qop="auth"',
        b'Digest realm="x", nonce="n", qop="new"',
        b'Digest realm="x", nonce="n", nonce="m"',
        b'Digest realm="x", qop="auth"',
        b'Digest nonce="x", qop="auth"',
        b'Digest realm="x", nonce="n',
        b"Digest",
        b"",
        b"\xff\xfe,,,",
    ],
)
def test_challenge_that_cannot_be_answered_is_passed_on(challenge: bytes) -> None:
    steps = inject(message(), HOW, Terms(LOGIN))
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(refused(challenge))


@pytest.mark.parametrize(
    ("values", "how"),
    [
        ({"value": b"password-alone"}, HOW),
        ({"value": b":password"}, HOW),
        ({"value": b"user:"}, HOW),
        ({"username": b"a:b", "password": b"c"}, HOW),
        ({"username": b"a\r\nb", "password": b"c"}, HOW),
        ({"value": b""}, Inject.from_data({"kind": "digest", "user": "bot"})),
    ],
)
def test_login_that_digest_cannot_carry_is_refused(values: dict, how: Inject) -> None:
    with pytest.raises(InvalidRequest):
        next(inject(message(), how, Terms(values)))


@given(st.binary(max_size=200))
def test_no_header_of_a_server_breaks_the_reader(value: bytes) -> None:
    parse_challenges([value, b"Digest " + value])


def test_a_server_cannot_put_a_header_into_the_next_message() -> None:
    steps = inject(message(), HOW, Terms(LOGIN))
    next(steps)
    with pytest.raises(InvalidRequest):
        steps.send(refused(b'Digest realm="a\\\r\\\nX-Evil: 1", nonce="n", qop="auth"'))
