"""The tables of docs/proxy.md: whatever a row says is refused, is refused as it says, and nothing of it arrives."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from broker.stack import HOST, SECRET, Stack, basic, read_reply
from faces.proxy import test_http2_hostile as http2

PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


def _line(line: bytes) -> bytes:
    return line + b"\r\nHost: HOST\r\n\r\n"


def _get(*lines: bytes, host: bytes = b"Host: HOST") -> bytes:
    return b"\r\n".join([b"GET /v1/x HTTP/1.1", *([host] if host else []), *lines, b"", b""])


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST /v1/x HTTP/1.1", b"Host: HOST", *lines, b"", b""]) + (body or SECOND)


# For each row, by how it begins, requests that it means. In a tunnel HOST is the tunnel's host and port; a request that
# begins with AT goes to the proxy's own port, where URL is the beginning of an absolute URL.
REQUESTS: dict[str, list[bytes]] = {
    "a request line": [
        *(_line(b"GET%b/v1/x HTTP/1.1" % blank) for blank in (b"  ", b"\t", b" \t", b"\x0b", b"\xa0")),
        *(_line(b"GET /v1/x%b" % end) for end in (b"  HTTP/1.1", b"\tHTTP/1.1", b" HTTP/1.1 ", b" HTTP/1.1 x")),
        *(
            _line(b"GET /v1/x " + version)
            for version in (b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1", b"HTTP/1.10", b"http/1.1")
        ),
        *(
            _line(b"GET /v1/x " + version)
            for version in (b"HTTP/0.9", b"HTTP/01.1", b"ICY/1.1", b"HTTP /1.1", b"HTTP/1,1")
        ),
        _line(b" GET /v1/x HTTP/1.1"),
        _line(b"GET /v1/x"),
        b"GET /v1/x\r\n",
        b"GET /v1/x\n",
        b"GET /v1/x HTTP/1.1\nHost: HOST\n\n",
        b"GET /v1/x HTTP/1.1\rHost: HOST\r\r",
    ],
    "methods": [
        *(_line(method + b" /v1/x HTTP/1.1") for method in (b"get", b"Get", b"TRACE", b"TRACK", b"PRI", b"CONNECT")),
        *(_line(method + b" /v1/x HTTP/1.1") for method in (b"G\0ET", b"GE(T", b"G" * 33, b"\xc9T", b"GET:", b"")),
    ],
    "targets": [
        *(_line(b"GET %b HTTP/1.1" % target) for target in (b"/a b", b"/a\tb", b"/a#b", b"/a\0b", b"/a\x7f", b"/a\rb")),
        *(
            _line(b"GET %b HTTP/1.1" % target)
            for target in (b"*", b"v1/x", b"http://HOST/v1/x", b"?a", b"", b"\\v1\\x")
        ),
        b"AT" + _get().replace(b"\r\n", b"\r\nPROXY\r\n", 1),
    ],
    "[paths]": [
        *(
            _line(b"GET /v1/%b HTTP/1.1" % path)
            for path in (b"../a", b"./a", b"%2e%2e/a", b".%2E/a", b"a/..;x/b", b"a//../b")
        ),
        *(
            _line(b"GET /v1/%b HTTP/1.1" % path)
            for path in (b"a\\b", b"%5ca", b"%252e", b"%2", b"%zz", b"%00", b"%0d%0a")
        ),
        *(
            _line(b"GET /v1/%b HTTP/1.1" % path)
            for path in (b"%c0%ae%c0%ae/", b"%uff0e/", b"\xc0\xaf", b"..%2fa", b"%2f%252fa", b"%25252e")
        ),
    ],
    "line ends": [
        *(_get(b"X: a%bb" % byte) for byte in (b"\r", b"\n", b"\0", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x08")),
        *(_get(b"X%bY: a" % byte) for byte in (b"\r", b"\n", b"\0", b"\x0b", b"\x7f")),
        _get(b"X: a\nInjected: 1"),
        b"GET /v1/x HTTP/1.1\r\nHost: HOST\n\r\n\r\n",
    ],
    "header names": [
        *(
            _get(name + b": a")
            for name in (b"X ", b"X\t", b" X", b"", b"X(y)", b"X\xc3\xa9", b"X@", b"X,Y", b'"X"', b"X;Y")
        ),
        *(_get(line) for line in (b"Junk", b"X", b": a", b"{}")),
    ],
    "lines that go on": [
        _get(b"X: a", b" b"),
        _get(b"X: a", b"\tb"),
        _get(b" X: a"),
        _get(host=b"Host:\r\n HOST"),
        _post(b"Transfer-Encoding:\r\n chunked"),
        _post(b"Content-Length:\r\n 5"),
    ],
    "`Content-Length` beside": [
        _post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG"),
        _post(CHUNKED, b"Content-Length: 6", body=b"0\r\n\r\nG"),
        _post(CHUNKED, b"Content-Length: 0"),
        _get(CHUNKED, b"Content-Length: 0"),
    ],
    "`Content-Length` twice": [
        *(_post(b"Content-Length: 5", b"Content-Length: " + other) for other in (b"5", b"0", b"05", b"75")),
        *(
            _post(b"Content-Length: " + value)
            for value in (b"5, 5", b"5,", b"+5", b"-5", b"0x5", b"5.0", b"5e0", b"", b"1 0")
        ),
        *(
            _post(b"Content-Length: " + value)
            for value in (b"9" * 16, b"\xc2\xb2", b"\xd9\xa5", b'"5"', b"5;a", b"1_0", b"5\xa0")
        ),
        _post(b"Content-Length : 5"),
    ],
    "`Transfer-Encoding`": [
        *(
            _post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
            for value in (b"gzip, chunked", b"chunked, chunked", b"")
        ),
        *(
            _post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
            for value in (b"xchunked", b"chunked;a=b", b'"chunked"')
        ),
        *(
            _post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
            for value in (b"identity", b"chunked,", b"\xa0chunked")
        ),
        _post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
        _post(CHUNKED, body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    ],
    "chunks": [
        *(
            _post(CHUNKED, body=size + b"\r\nhello\r\n0\r\n\r\n")
            for size in (b"+5", b"-5", b"0x5", b"5_", b"5 ", b" 5", b"")
        ),
        *(
            _post(CHUNKED, body=size + b"\r\nhello\r\n0\r\n\r\n")
            for size in (b"G", b";a", b"5.0", b"F" * 16, b"0" * 17 + b"5")
        ),
        *(
            _post(CHUNKED, body=b"5;" + ext + b"\r\nhello\r\n0\r\n\r\n")
            for ext in (b"a\nb", b"a\rb", b"\0", b"a" * 300)
        ),
        *(_post(CHUNKED, body=b"5" + end + b"hello\r\n0\r\n\r\n") for end in (b"\n", b"\r", b"\r\r\n", b"\r\n\n")),
        *(_post(CHUNKED, body=b"5\r\nhello%b0\r\n\r\n" % end) for end in (b"\n", b"XX", b"", b"\r\r\n")),
        _post(CHUNKED, body=b"0\r\nX: a\nY: b\r\n\r\n"),
        _post(CHUNKED, body=b"0\r\nX : a\r\n\r\n"),
    ],
    "no `Host`": [
        _get(host=b""),
        _get(b"Host: HOST"),
        _get(b"host: evil.test"),
        *(
            _get(host=b"Host: " + value)
            for value in (b"", b"HOST, evil.test", b"HOST/x", b"a@HOST", b"HOST evil.test", b"@HOST")
        ),
        *(
            _get(host=b"Host: " + value)
            for value in (b"HOST\\@evil.test", b"HOST?x", b"HOST#x", b"[HOST]", b"HOST:0", b"%41")
        ),
    ],
    "a host or port": [
        *(_get(host=b"Host: " + value) for value in (b"evil.test", b"api.allowed.test:1", b"127.0.0.1:PORT", b"xHOST")),
        b"AT" + _get(b"PROXY", host=b"Host: evil.test").replace(b"/v1", b"URL/v1", 1),
        b"AT" + _get(b"PROXY").replace(b"/v1", b"http://evil.test/v1", 1),
        b"AT" + _get(b"PROXY", host=b"Host: api.allowed.test:1").replace(b"/v1", b"URL/v1", 1),
        b"ATCONNECT HOST HTTP/1.1\r\nHost: evil.test:443\r\nPROXY\r\n\r\n",
    ],
    "a user name": [
        b"AT" + _get(b"PROXY").replace(b"/v1", b"http://a@HOST/v1", 1),
        b"AT" + _get(b"PROXY").replace(b"/v1", b"http://HOST@evil.test/v1", 1),
        b"ATCONNECT a@HOST HTTP/1.1\r\nHost: HOST\r\nPROXY\r\n\r\n",
        b"AT" + _get(b"PROXY").replace(b"/v1", b"ftp://HOST/v1", 1),
        b"AT" + _get(b"PROXY").replace(b"/v1", b"http:/HOST/v1", 1),
        b"AT" + _get(b"PROXY").replace(b"/v1", b"http:\\\\HOST/v1", 1),
    ],
    "`CONNECT`": [
        b"ATCONNECT HOST HTTP/1.1\r\nHost: HOST\r\nPROXY\r\nContent-Length: 1\r\n\r\nx",
        b"ATCONNECT HOST HTTP/1.1\r\nHost: HOST\r\nPROXY\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        *(
            b"ATCONNECT %b HTTP/1.1\r\nHost: HOST\r\nPROXY\r\n\r\n" % to
            for to in (b"api.allowed.test", b"api.allowed.test:")
        ),
        *(
            b"ATCONNECT %b HTTP/1.1\r\nHost: HOST\r\nPROXY\r\n\r\n" % to
            for to in (b"HOST/", b"http://HOST", b"api.allowed.test:0")
        ),
        b"ATCONNECT api.allowed.test:65979 HTTP/1.1\r\nHost: HOST\r\nPROXY\r\n\r\n",
    ],
    "names that imitate": [
        *(
            _post(name + b": 5")
            for name in (b"Content_Length", b"Transfer_Encoding", b"CONTENT_LENGTH", b"Content.Length")
        ),
        *(_get(name + b": evil") for name in (b"X_HTTP_Method_Override", b"X_Forwarded_Host", b"Proxy_Authorization")),
        *(
            _get(name + b": /evil")
            for name in (b"X_Original_URL", b"X_Rewrite-URL", b"X.Original.URL", b"X~Original~URL")
        ),
    ],
    "what may stand once": [
        _get(b"Expect: 100-continue", b"Expect: 100-continue"),
        _get(b"Proxy-Authorization: Basic YTpi", b"Proxy-Authorization: Basic YTpi"),
    ],
    "an expectation": [
        *(
            _post(b"Expect: " + value, b"Content-Length: 5", body=b"hello")
            for value in (b"200-ok", b"100-continue, x", b"")
        ),
    ],
    "a WebSocket handshake": [
        _get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13") + SECOND,
        _get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 99", b"Sec-WebSocket-Key: x")
        + SECOND,
        _get(b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="),
    ],
    "a request that has been here": [
        _get(b"Via: 1.1 VIA"),
        _get(b"Via: 1.0 fred, 1.1 VIA"),
        _get(b"Via: 2.0 a", b"Via: 2.0 VIA"),
    ],
    "a head of more": [
        _get(b"X: " + b"a" * 17_000),
        _get(*(b"X-%d: a" % number for number in range(200))),
        _get(*(b"X-%d: %b" % (number, b"a" * 16_000) for number in range(5))),
        _line(b"GET /" + b"a" * 9000 + b" HTTP/1.1"),
    ],
}


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first line of cells begins so."""
    lines = iter(PAGE.read_text().splitlines())
    for line in lines:
        if line.startswith(heading):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def _of(rows: list[list[str]], shown: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Each row's first two cells, and what is shown for it; none of either is left over."""
    found = []
    for row in rows:
        keys = [key for key in shown if row[0].startswith(key)]
        assert len(keys) == 1, f"{row[0]}: {keys}"
        assert any(row[1:]), row[0]
        found.append((row[0], row[1], shown[keys[0]]))
    assert len(found) == len(shown), "a row is missing"
    return found


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        await module_stack.secret("stripe/key")
        await module_stack.service("plain", hosts=[f"{HOST}:{module_stack.plain}"], schemes=["http"])
        return await module_stack.agent("coder", "plain")

    return runner.run(prepare())


async def _play(stack: Stack, token: str, raw: bytes, *, end: bool = True) -> bytes:
    """All that comes back. Who ends its side is not waited for as long as who does not."""
    host = f"{HOST}:{stack.plain}".encode()
    own = raw.startswith(b"AT")
    raw = raw.removeprefix(b"AT").replace(b"URL/", b"http://%b/" % host).replace(b"HOST", host)
    raw = raw.replace(b"PROXY\r\n", basic(token)).replace(b"VIA", stack.proxy.pseudonym)
    raw = raw.replace(b":PORT", b":%d" % stack.plain)
    reader, writer = await (stack.open() if own else stack.tunnel(token, port=stack.plain, tls=False))
    received = b""
    try:
        writer.write(raw)
        if end:
            writer.write_eof()
        async with asyncio.timeout(20):
            while piece := await reader.read(65536):
                received += piece
    except ConnectionError:
        pass
    writer.close()
    return received


def test_each_ambiguity_of_a_request_is_refused_as_the_documentation_says(stack: Stack, run, token: str) -> None:
    async def play() -> None:
        for first, answer, examples in _of(table("| refused | answer | rule |"), REQUESTS):
            for raw in examples:
                received = await _play(stack, token, raw)
                assert received.startswith(f"HTTP/1.1 {answer} ".encode()), (first, raw[:200], received[:200])
                assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1, (first, raw[:200], received)
        assert stack.upstream.requests == []
        fine = await _play(stack, token, _get(b"Connection: close"), end=False)
        assert fine.startswith(b"HTTP/1.1 200 ")

    run(play())


HEAD = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
# As above, for what an upstream answers to a GET, or to a HEAD where it begins with HEAD.
ANSWERS: dict[str, list[bytes]] = {
    "a status line": [
        *(
            line + b"\r\nContent-Length: 0\r\n\r\n"
            for line in (b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 X", b"HTTP/1.1 20 X")
        ),
        *(line + b"\r\nContent-Length: 0\r\n\r\n" for line in (b"HTTP/2.0 200 OK", b"HTTP/1.1  200 OK", b"ICY 200 OK")),
        *(
            line + b"\r\nContent-Length: 0\r\n\r\n"
            for line in (b"HTTP/1.1 600 X", b"HTTP/1.1 200 a\x01b", b"http/1.1 200 OK")
        ),
        b"<html>hi\r\n\r\n",
    ],
    "a head with": [
        *(
            HEAD + line + b"\r\nContent-Length: 0\r\n\r\n"
            for line in (b"X: a\nSet-Cookie: e=1", b"X: a\0b", b"X: a\r b")
        ),
        *(
            HEAD + line + b"\r\nContent-Length: 0\r\n\r\n"
            for line in (b"X : a", b"X: a\r\n b", b": a", b"Junk", b"Content_Length: 9")
        ),
        HEAD + b"X: " + b"a" * 70_000,
        HEAD + b"X: a\r\n" * 300 + b"\r\n",
    ],
    "two lengths": [
        HEAD + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        *(HEAD + b"Content-Length: %b\r\n\r\nhello" % value for value in (b"+5", b"5, 5", b"0x5", b"", b"-1")),
        *(HEAD + b"Transfer-Encoding: %b\r\n\r\n0\r\n\r\n" % value for value in (b"gzip, chunked", b"identity", b"")),
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    "chunks": [
        *(
            IN_CHUNKS + body
            for body in (b"-1\r\n", b"F" * 16 + b"\r\nx", b"0x1\r\na\r\n0\r\n\r\n", b"1;\r\na\r\n0\r\n\r\n")
        ),
        *(IN_CHUNKS + body for body in (b"1\r\naX0\r\n\r\n", b"1\na\r\n0\r\n\r\n", b"0\r\nX : a\r\n\r\n")),
    ],
    "a 101": [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\nraw",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01a",
    ],
    "more than": [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + HEAD + b"Content-Length: 0\r\n\r\n"],
    "bytes behind": [HEAD + b"Content-Length: 5\r\n\r\nhello" + EVIL, IN_CHUNKS + b"5\r\nhello\r\n0\r\n\r\n" + EVIL],
    "a body where": [
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n" + EVIL,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n" + EVIL,
        b"HEAD" + HEAD + b"Content-Length: 4\r\n\r\n" + EVIL,
    ],
    "a body that is shorter": [
        HEAD + b"Content-Length: 50\r\n\r\nhello",
        IN_CHUNKS + b"5\r\nhello\r\n",
        IN_CHUNKS + b"5\r\nhello\r\n0\r\n",
    ],
}


def test_each_ambiguity_of_an_answer_ends_as_the_documentation_says(stack: Stack, run, token: str) -> None:
    async def play() -> None:
        for first, answer, examples in _of(table("| of an upstream | the client gets | rule |"), ANSWERS):
            for raw in examples:
                stack.keyhole.pool.distrust()  # no connection is idle
                before = len(stack.upstream.raw)

                async def say(
                    _request: object,
                    writer: asyncio.StreamWriter,
                    raw: bytes = raw,
                    broken: bool = answer[:4] == "what",
                ) -> None:
                    writer.write(raw.removeprefix(b"HEAD"))
                    await writer.drain()
                    if broken:
                        writer.close()

                stack.upstream.say = say
                asked = _get(b"Connection: close")
                head = asked.replace(b"GET", b"HEAD")
                received = await _play(stack, token, head if raw[:4] == b"HEAD" else asked, end=False)
                assert len(re.findall(rb"HTTP/1\.1 \d", received)) == 1, (first, raw[:200], received)
                assert b"EVIL" not in received, (first, raw[:200])
                if answer == "502" or received.startswith(b"HTTP/1.1 502 "):
                    assert received.startswith(b"HTTP/1.1 502 "), (first, raw[:200], received)
                    assert b"e=1" not in received, raw[:200]
                elif answer == "what there is, broken off":
                    assert not received.endswith(b"0\r\n\r\n"), (first, raw[:200], received)
                    assert received.startswith(b"HTTP/1.1 200 "), raw[:200]
                else:
                    assert answer == "the answer alone"
                    assert received[9:12] in {b"200", b"204", b"304"}, (first, raw[:200], received)
                stack.upstream.say = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"
                assert (await _play(stack, token, asked, end=False)).endswith(b"mine")
                assert len(stack.upstream.raw) == before + 2, f"{first}: the connection was used again: {raw[:200]!r}"

    run(play())


LEFT_OUT = {
    "`Connection`": [
        b"Connection: keep-alive, x-a\r\nX-A: 1",
        b"Connection: close, Authorization",
        b"Connection: host",
    ],
    "`Keep-Alive`": [
        b"Keep-Alive: 5",
        b"Proxy-Connection: keep-alive",
        b"TE: chunked",
        b"Trailer: X-T",
        b"HTTP2-Settings: a",
    ],
    "`Expect:": [b"Expect: 100-continue"],
    "`Upgrade`": [b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: Upgrade\r\nUpgrade: foo/1"],
    "`X-HTTP-Method-Override`": [
        *(name + b": DELETE" for name in (b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override")),
        *(name + b": DELETE" for name in (b"X-Original-Method", b"Http-Method-Override", b"X~Original~Method")),
    ],
    "`X-Original-URL`": [
        *(name + b": /evil" for name in (b"X-Original-URL", b"X-Rewrite-URL", b"X-Original-URI")),
        *(name + b": /evil" for name in (b"SCRIPT_NAME", b"Script-Name", b"PATH_INFO", b"X-Script-Name")),
        *(name + b": /evil" for name in (b"X-Override-URL", b"X-HTTP-Path-Override", b"X_Envoy_Original_Path")),
        *(name + b": /evil" for name in (b"X-Original-Path", b"X-Proxy-Url", b"X-Rewrite-Uri", b"X-Request-URI")),
    ],
    "`X-Middleware-Subrequest`": [b"X-Middleware-Subrequest: middleware", b"X-Middleware-Rewrite: /evil"],
    "`Forwarded`": [
        *(name + b": evil" for name in (b"X-Forwarded-Host", b"X-Forwarded-For", b"X-Forwarded-Any", b"Forwarded")),
        *(name + b": evil" for name in (b"X-Real-IP", b"X-Host", b"X-Original-Host", b"X_Real_IP", b"X.Forwarded.A")),
        b"X-HTTP-Host-Override: evil",
        *(name + b": 127.0.0.1" for name in (b"Client-IP", b"X-Client-IP", b"True-Client-IP", b"CF-Connecting-IP")),
        *(name + b": 127.0.0.1" for name in (b"Fastly-Client-IP", b"X_Cluster_Client_IP", b"X-Originating-IP")),
        *(name + b": 127.0.0.1" for name in (b"X-Forwarded", b"X-Remote-IP", b"X-Remote-Addr", b"X-Azure-ClientIP")),
    ],
    "`Proxy-Authorization`": [b"Proxy-Authorization: Basic YTpi", b"Proxy-Anything: 1", b"X-Keyhole-Anything: 1"],
    "`Content_Type`": [b"Content_Type: text/evil", b"Content.Encoding: gzip"],
    "a trailer": [b"TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%b: evil\r\n\r\n" % name for name in (
        b"Authorization", b"Host", b"Content-Length", b"Transfer-Encoding", b"Cookie", b"X-Forwarded-For",
        b"X.Forwarded.For", b"X~Real~IP", b"If.Match", b"Script_Name", b"Proxy.Authorisation",
    )],
}  # fmt: skip


def test_what_the_documentation_says_is_left_out_does_not_arrive(stack: Stack, run, token: str) -> None:
    async def play() -> None:
        for first, _, shown in _of(table("| left out | rule |"), LEFT_OUT):
            for lines in shown:
                stack.upstream.forget()
                raw = _get(lines)
                if b"chunked" in lines and b"Transfer" in lines:
                    raw = raw.replace(b"GET", b"POST").removesuffix(b"\r\n\r\n")
                reader, writer = await stack.tunnel(token, port=stack.plain, tls=False)
                writer.write(raw.replace(b"HOST", f"{HOST}:{stack.plain}".encode()))
                reply = await read_reply(reader)
                writer.close()
                assert reply.status == 200, (first, lines, reply.raw)
                [request] = stack.upstream.requests
                assert request.trailers == b"", (first, lines)
                assert request.values(b"authorization") == [b"Bearer " + SECRET.encode()], (first, lines)
                names = {name.replace(b"_", b"-") for name, _ in request.headers}
                assert names <= {b"host", b"authorization", b"via", b"accept-encoding", *FRAMING}, (first, lines, names)

    run(play())


FRAMING = {b"content-length", b"transfer-encoding"}
# Of HTTP/2 the cases of tests/faces/proxy/test_http2_hostile.py that show a row.
REFUSED_2 = {
    "a pseudo-header field twice": [
        "h2-dup-pseudo",
        "pseudo after others",
        "h2-unknown-pseudo",
        "no path",
        "h2-pseudo-in-trailers",
    ],
    "names with upper case": [
        "h2-upper-name",
        "space in a name",
        "colon in a name",
        "nul in a value",
        "lf in a value",
        "space before a value",
    ],
    "`connection`": ["h2-connection-hdr", "h2-keepalive-hdr", "h2-te-chunked", "h2-te-gzip", "upgrade alone"],
    "a body that is longer": ["h2-cl-mismatch", "two lengths", "length without a body"],
    "`:authority`": [
        "h2-authority-vs-host",
        "h2-authority-userinfo",
        "path in the authority",
        "other port",
        "h2-coalesced",
    ],
    "`:scheme`": ["other scheme", "h2-scheme-inject"],
    "`:path`": ["h2-path-absolute", "h2-path-space", "h2-path-crlf", "fragment", "empty path"],
    "methods in lower case": ["lower-case method", "trace", "connect with a path"],
    "header names that imitate": ["underscores"],
}
ENDED_2 = {
    "header sections that cannot": ["index zero", "header bomb", "many fields of one byte", "late table update"],
    "more than 16": ["h2-continuation-flood", "large continuations"],
    "streams that are reset": ["h2-rapid-reset", "flood of malformed", "flood of refused"],
    "PING": [
        "h2-ping-flood",
        "h2-settings-flood",
        "priority flood",
        "flood of unknown frames",
        "flood of empty data",
        "flood of small windows",
    ],
    "more than a window": ["window of nothing", "window too large", "data after the end", "data on no stream"],
}


def test_each_row_about_http2_is_shown_by_cases_that_are_played() -> None:
    played = http2.MALFORMED.keys() | http2.FATAL.keys() | http2.APART
    for heading, shown in (("| refused | rule |", REFUSED_2), ("| ended | bound | known as |", ENDED_2)):
        for first, _, names in _of(table(heading), shown):
            assert names, first
            assert set(names) <= played, first


def test_a_handshake_without_a_server_name_is_refused_where_the_host_has_one(stack: Stack, run, token: str) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE

    async def shake(service: str, host: str) -> str:
        await stack.service(service, hosts=[f"{host}:{stack.secure}"])
        agent = await stack.agent(f"for-{service}", service)
        reader, writer = await stack.tunnel(agent, host, stack.secure, tls=False)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting.wrap_bio(incoming, outgoing)
        while True:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
            except ssl.SSLError as error:
                return str(error.reason)
            else:
                writer.close()
                return "made"

    assert run(shake("named", HOST)) == "TLSV1_UNRECOGNIZED_NAME"
    assert run(shake("addressed", "127.0.0.1")) == "made"


def test_a_server_name_of_another_host_is_on_record() -> None:
    async def play() -> int:
        async with Stack() as stack:  # of its own, as only so many refusals are recorded one by one

            async def refusals() -> int:
                found = await stack.ask("read", "sys/audit-log", {"limit": 1000, "result": "bad_request_framing"})
                return len(found["records"])

            await stack.secret("stripe/key")
            await stack.service("fronted")
            _, writer = await stack.tunnel(await stack.agent("fronting", "fronted"), port=stack.secure, tls=False)
            with pytest.raises(ssl.SSLError):
                await writer.start_tls(stack.client, server_hostname="evil.test")
            while not (found := await refusals()):  # noqa: ASYNC110 - recorded when the client has its answer
                await asyncio.sleep(0.01)
            return found

    assert asyncio.run(asyncio.wait_for(play(), 60)) == 1
