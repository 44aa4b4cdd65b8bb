"""Clients that know nothing of a proxy, in a network where everything leads to the broker."""

import asyncio
import json
import shutil
import socket
import ssl
import struct
import sys

import pytest

from faces.run_fixtures import authority, namespaces_allowed
from keyhole.faces.run import transparent
from keyhole.faces.run.child import run_child
from keyhole.faces.run.hello import Nameless, NamelessRequest, host_field, server_name
from keyhole.faces.run.names import Names
from keyhole.faces.run.plan import RunPlan
from keyhole.net.hello import HelloReader
from keyhole.net.http1.limits import ListenerLimits

BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}


def hello(name: str | None) -> bytes:
    """What OpenSSL says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    handle = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        handle.do_handshake()
    return outgoing.read()


def record(message: bytes) -> bytes:
    """A record of TLS with a message of its handshake."""
    return b"\x16\3\1" + struct.pack(">H", len(message)) + message


def built(*names: tuple[int, bytes], extensions: int = 1) -> bytes:
    """The body of a ClientHello that asks for these, as often as is said."""
    listed = b"".join(struct.pack(">BH", kind, len(name)) + name for kind, name in names)
    extension = struct.pack(">HHH", 0, len(listed) + 2, len(listed)) + listed
    rest = extension * extensions
    return b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack(">H", len(rest)) + rest


# Names.


def test_the_name_is_found_wherever_the_bytes_are_cut_and_in_normal_form():
    data, reader = hello("API.Example.com"), HelloReader()
    for end in range(len(data)):
        assert server_name(reader, data[:end]) is None
    assert server_name(reader, data) == "api.example.com"


@pytest.mark.parametrize(
    "body",
    [
        built(),
        built((0, b"a.example"), (0, b"b.example")),
        built((0, b"a.example"), extensions=2),
        built((1, b"a.example")),
        built((0, b"192.0.2.1")),
        built((0, b"2001:db8::1")),
        built((0, b"a b.example")),
        built((0, b"\xff.example")),
        built((0, "a\u3002example".encode())),
        built((0, b"a.example"))[:-1],
        built((0, b"a.example"))[:40],
        b"",
    ],
    ids=[
        "none",
        "two",
        "twice",
        "of another kind",
        "IPv4",
        "IPv6",
        "space",
        "no text",
        "another dot",
        "cut",
        "cut early",
        "empty",
    ],
)
def test_what_does_not_name_one_host_is_nameless(body):
    with pytest.raises(Nameless):
        server_name(HelloReader(), record(b"\1" + len(body).to_bytes(3) + body))


def test_a_hello_without_a_name_is_nameless():
    with pytest.raises(Nameless):
        server_name(HelloReader(), hello(None))


@pytest.mark.parametrize(
    "data", [b"\x16\3\1\0\0x", b"\x16\2\1\0\5hello", b"\x16\3\1\xff\xff" + bytes(9), b"\x16\3\1\0\1\2"]
)
def test_what_does_not_begin_as_tls_does_is_no_hello(data):
    with pytest.raises(Nameless):
        server_name(HelloReader(), data)


@pytest.mark.parametrize("host", [b"", b"Host: 192.0.2.1\r\n", b"Host: a\r\nHost: b\r\n", b"Host: a b\r\n"])
def test_a_request_without_one_host_is_nameless(host):
    with pytest.raises(NamelessRequest):
        host_field(b"GET / HTTP/1.1\r\n" + host + b"\r\n")


def test_a_request_names_its_host():
    assert host_field(b"GET / HTTP/1.1\r\nHost: API.example.com:80\r\n\r\n") == "api.example.com"


@pytest.mark.parametrize(
    ("said", "of_tls"),
    [(b"\x17\3\3\0\5hello", False), (b"EHLO there\r\n", False), (hello("a.example")[:-1], True), (b"", None)],
    ids=["other records", "another protocol", "half a hello", "nothing"],
)
def test_what_names_no_host_in_time_is_nameless_unless_nothing_was_said(monkeypatch, said, of_tls):
    monkeypatch.setattr(transparent, "_LIMITS", ListenerLimits(head_timeout=0.05))

    async def go():
        reader = asyncio.StreamReader()
        if said:
            reader.feed_data(said)
        return await transparent._named(reader)

    if of_tls is None:
        assert asyncio.run(go()) == ("", b"")
        return
    with pytest.raises(Nameless) as refused:
        asyncio.run(go())
    assert refused.value.of_tls == of_tls


# Questions.


def question(name: bytes, kind: int = 1) -> bytes:
    return struct.pack(">HHHHHH", 77, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", kind, 1)


def test_each_name_has_an_address_that_is_told_back():
    names = Names()
    one, two = (names.answer(question(name))[-4:] for name in (b"\3api\4test\0", b"\3www\4test\0"))
    assert one[:2] == two[:2] == bytes((198, 18))
    assert one != two
    assert names.answer(question(b"\3API\4TEST\0"))[-4:] == one
    assert names.name(socket.inet_ntoa(one)) == "api.test"
    assert names.name("203.0.113.9") == "203.0.113.9"


@pytest.mark.parametrize("kind", [28, 65, 16], ids=["AAAA", "HTTPS", "TXT"])
def test_other_records_are_said_to_be_none(kind):
    answer = Names().answer(question(b"\3api\4test\0", kind))
    ident, flags, _, answers = struct.unpack(">HHHH", answer[:8])
    assert (ident, flags & 0x800F, answers) == (77, 0x8000, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 11, question(b"\x40" + b"a" * 64 + b"\0"), question(b"\3ap"), question(b"\xc0\x0c"), question(b"\0")],
)
def test_malformed_questions_get_no_address(data):
    names = Names()
    answer = names.answer(data)
    assert answer == b"" or struct.unpack(">H", answer[6:8])[0] == 0
    assert names.name("198.18.0.1") == "198.18.0.1"


@pytest.mark.parametrize(
    "label",
    [b"a\r\nX-Keyhole-Service: api", b"\x1b[2Jkeyhole: all is well", b"a b", b"a/b", b"a:80", b"a@b", b"\xe9", b"a\0"],
)
def test_a_name_that_is_none_of_a_host_gets_no_address(label):
    names = Names()
    answer = names.answer(question(bytes((len(label),)) + label + b"\4test\0"))
    assert struct.unpack(">HHHH", answer[:8])[1:] == (0x8005, 1, 0)
    assert names.name("198.18.0.1") == "198.18.0.1"


def test_an_answer_is_not_answered():
    names = Names()
    assert names.answer(names.answer(question(b"\3api\4test\0"))) == b""


# Connections.


class Proxy:
    """Stands for the broker's: notes what it is asked for, and passes some tunnels to nobody but itself."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if head.startswith(b"CONNECT allowed.test:80 "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            line = await reader.readline()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(line) + line)
        else:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        writer.close()

    @property
    def lines(self) -> list[str]:
        return [head.split(b"\r\n")[0].decode() for head in self.heads]


CLIENT = r"""
import json, socket, ssl, sys
found = {}
def attempt(name, work):
    try:
        found[name] = work()
    except OSError as error:
        found[name] = str(error)
def fetch(host, port=80, given="allowed.test"):
    with socket.create_connection((host, port), 10) as there:
        there.sendall(f"GET /hello HTTP/1.1\r\nHost: {given}\r\n\r\n".encode())
        return there.makefile().read()
def shake(host, port, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with socket.create_connection((host, port), 10) as there:
        return str(context.wrap_socket(there, server_hostname=name))
attempt("plain", lambda: fetch("allowed.test"))
attempt("plain by an address", lambda: fetch("203.0.113.7"))
attempt("refused", lambda: shake("denied.test", 443, "denied.test"))
attempt("port of a service", lambda: shake("denied.test", 8443, "denied.test"))
attempt("nameless", lambda: shake("203.0.113.8", 443, None))
attempt("another port", lambda: shake("other.test", 22, "other.test"))
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.sendto(b"quic", (socket.gethostbyname("fast.test"), 443))
attempt("datagram", datagram)
def over_tcp():
    import struct
    with socket.create_connection(("127.0.0.1", 53), 10) as there:
        asked = struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + b"\4more\4test\0" + struct.pack(">HH", 1, 1)
        there.sendall(len(asked).to_bytes(2, "big") + asked)
        return there.recv(100)[-4:-2].hex()
attempt("a question over TCP", over_tcp)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """What a client without a proxy met, what the proxy was asked for, and what the user was told."""
    if sys.platform != "linux" or not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids namespaces, so nothing was redirected")
    out = tmp_path_factory.mktemp("transparent") / "out"
    said = []

    async def run():
        proxy = Proxy()
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            plan = RunPlan(
                (shutil.which("sh"), "-c", 'exec "$0" -c "$1" > "$2"', sys.executable, CLIENT, str(out)),
                f"http://agent:tok@127.0.0.1:{server.sockets[0].getsockname()[1]}",
                authority(),
                base_env=BASE,
                network="broker",
                transparent=True,
                served=("api.test:8443",),
            )
            assert await run_child(plan, on_message=said.append) == 0, said
        return proxy

    proxy = asyncio.run(run())
    return json.loads(out.read_text()), proxy, said


def test_a_client_without_a_proxy_is_led_to_the_host_that_it_names(tried):
    found, proxy, _ = tried
    assert found["plain"].endswith("GET /hello HTTP/1.1\n")
    assert found["plain by an address"] == found["plain"]
    assert proxy.lines.count("CONNECT allowed.test:80 HTTP/1.1") == 2
    assert all(b"Proxy-Authorization: Basic YWdlbnQ6dG9r\r\n" in head for head in proxy.heads)


def test_what_the_broker_refuses_ends_as_refused(tried):
    found, proxy, _ = tried
    assert "access denied" in found["refused"].lower()
    assert {"CONNECT denied.test:443 HTTP/1.1", "CONNECT denied.test:8443 HTTP/1.1"} <= set(proxy.lines)


def test_what_names_no_host_is_closed_and_put_on_record(tried):
    found, proxy, said = tried
    assert "unrecognized name" in found["nameless"].lower()
    assert "GET http://203.0.113.8:443/ HTTP/1.1" in proxy.lines
    assert "203.0.113.8:443" in said[-1]


def test_other_ports_and_datagrams_are_closed_and_put_on_record_with_the_name_that_was_meant(tried):
    found, proxy, said = tried
    assert "refused" in found["another port"]
    recorded = [head for head in proxy.heads if head.startswith(b"GET ")]
    assert all(b"X-Keyhole-Service: transparent:" in head for head in recorded)
    assert {"GET http://other.test:22/ HTTP/1.1", "GET http://fast.test:443/ HTTP/1.1"} <= set(proxy.lines)
    assert "other.test:22" in said[-1]
    assert "fast.test:443 (UDP)" in said[-1]


def test_questions_for_names_are_answered_over_tcp_too(tried):
    found, _, _ = tried
    assert found["a question over TCP"] == "c612"
