"""One question to a server, as login methods ask them: guarded, proved, bounded, and without following anybody."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from keyhole.core.errors import AddressDenied, InvalidRequest, UpstreamTimeout, UpstreamTls, UpstreamUnreachable
from keyhole.net.ask import Asker, AskLimits, Heard, parse_https
from keyhole.net.dial import Dialer
from keyhole.net.resolve import Resolver

HOST = "issuer.test"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
AUTHORITY = trustme.CA()
LIMITS = AskLimits(seconds=20, body=1000)


class Server:
    """Answers every connection with the same bytes, and keeps what it was asked."""

    def __init__(self, answer: bytes, *, hold: bool = False) -> None:
        self.answer = answer
        self.hold = hold
        self.asked = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
            if self.hold:
                await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def serving(server: Server, name: str = HOST) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


def ask(
    answer: bytes = OK,
    *,
    path: str = "/",
    name: str = HOST,
    allow: tuple[str, ...] = (HOST,),
    limits: AskLimits = LIMITS,
    headers: tuple[tuple[str, str], ...] = (),
    hold: bool = False,
) -> tuple[Heard, bytes]:
    async def go() -> tuple[Heard, bytes]:
        async with serving(Server(answer, hold=hold), name) as server:
            asker = Asker(Dialer(Resolver(static=[f"{HOST}:127.0.0.1"])), limits=limits)
            url = f"https://{HOST}:{server.port}{path}"
            ca = AUTHORITY.cert_pem.bytes().decode()
            return await asker.ask("GET", url, headers=headers, ca_pem=ca, allow=allow), server.asked

    return asyncio.run(go())


def test_an_answer_is_heard_while_it_comes() -> None:
    pieces: list[tuple[int, bytes]] = []

    async def go() -> Heard:
        heard_first = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await heard_first.wait()  # the rest leaves after what came before was heard
            writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
            await writer.drain()
            writer.close()

        async def heed(head: Heard, piece: bytes) -> None:
            pieces.append((head.status, piece))
            heard_first.set()

        server = Server(b"")
        server.serve = serve  # type: ignore[method-assign]
        async with serving(server):
            asker = Asker(Dialer(Resolver(static=[f"{HOST}:127.0.0.1"])), limits=LIMITS)
            ca = AUTHORITY.cert_pem.bytes().decode()
            url = f"https://{HOST}:{server.port}/"
            return await asker.ask("GET", url, ca_pem=ca, allow=(HOST,), heed=heed)

    assert asyncio.run(go()).body == b"onetwo"
    assert (200, b"one") in pieces
    assert b"".join(piece for _, piece in pieces) == b"onetwo"


def test_question_and_answer_in_every_framing() -> None:
    heard, asked = ask(path="/keys?a=b", headers=(("Authorization", "Bearer x"),))
    assert (heard.status, heard.body) == (200, b"{}")
    assert asked.startswith(b"GET /keys?a=b HTTP/1.1\r\nHost: issuer.test:")
    assert b"\r\nAuthorization: Bearer x\r\n" in asked
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert ask(chunked)[0].body == b"{}"
    assert ask(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\n\r\n{}")[0] == Heard(404, {}, b"{}")


def test_server_at_a_private_address_is_asked_only_where_it_was_allowed() -> None:
    with pytest.raises(AddressDenied):
        ask(allow=())
    assert ask(allow=("127.0.0.1",))[0].status == 200


def test_server_that_does_not_prove_its_name_is_told_nothing() -> None:
    with pytest.raises(UpstreamTls):
        ask(name="other.test")


def test_redirect_is_an_answer_and_not_followed() -> None:
    heard, _ = ask(b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
    assert heard.status == 302


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n" * 9 + OK,
        b"hello\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_within_bounds_is_refused(answer: bytes) -> None:
    with pytest.raises(UpstreamUnreachable):
        ask(answer)


def test_server_that_does_not_answer_is_left() -> None:
    with pytest.raises(UpstreamTimeout):
        ask(b"", hold=True, limits=AskLimits(seconds=0.5))


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.test/",
        "issuer.test",
        "ftp://issuer.test/",
        "https://user@issuer.test/",
        "https://issuer.test/#x",
        "https://issuer.test:0/",
        "https://issuer.test:99999/",
        "https:///x",
        "https://issuer.test/\u00e4",
        "https://issuer.test/a b",
        "https://issuer.test/" + "a" * 9000,
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_https(url)


def test_header_with_a_line_end_is_not_sent() -> None:
    with pytest.raises(InvalidRequest):
        ask(headers=(("Authorization", "Bearer a\r\nX: b"),))


def test_plain_http_only_where_it_was_allowed() -> None:
    assert parse_https("http://127.0.0.1:80/x", plain=("127.0.0.1",)).port == 80
