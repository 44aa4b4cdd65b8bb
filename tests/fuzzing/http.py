"""HTTP/1: what passes the gate is one request for everybody, as it comes and as it is sent on; the same of answers."""

import re
from dataclasses import replace

import h11
import httptools

from fuzzing.corpora import raw
from fuzzing.engine import Target, cut, refused
from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority, parse_authority
from keyhole.core.url import canonical_target
from keyhole.faces.proxy import gate
from keyhole.net.http1.framing import ChunkedDecoder, answer_decoder, request_decoder
from keyhole.net.http1.grammar import Malformed, check_partial_head, parse_answer_head, parse_request_head
from keyhole.net.http1.limits import REQUEST_LIMITS
from keyhole.net.http1.serialise import serialise_answer, serialise_request

SECRET = b"sk_live_51H8xKeyhole9Zq7"
_TUNNEL = gate.Tunnel("https", "api.allowed.test", 443, b"")
_MOST = 6
_NEVER = {
    *(b"transfer-encoding", b"proxy-authorization", b"te", b"trailer", b"keep-alive", b"upgrade", b"http2-settings"),
    *(b"proxy-connection", b"expect", b"x-http-method-override", b"x-rewrite-url", b"x-original-url", b"x-host"),
    *(b"forwarded", b"x-forwarded-host", b"x-keyhole-service", b"x-real-ip"),
}
_WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b": ", b":", b" :", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST ", b"CONNECT ",
    b"http://api.allowed.test/", b"https://api.allowed.test:443/a?b", b"Host: api.allowed.test\r\n", b"/v1/a",
    b"/%2e%2e/", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked",
    b"\x0bchunked", b"Connection: close\r\n", b"Connection: host, x-a\r\n", b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n", b"a;b=c\r\n",
    b"X_Forwarded_Host: x\r\n", b"TE: trailers\r\n", b"X-Keyhole-Service: a\r\n", b"Via: 1.1 keyhole\r\n",
    b"Authorization: Bearer x\r\n", b"\xc2\xa0", b"%0d%0a", b"hello",
)  # fmt: skip


class Reading:
    """A message as somebody has read it."""

    def __init__(self):
        self.start, self.headers, self.body, self.whole = (), [], b"", False

    def __eq__(self, other):
        return self.shown() == other.shown()

    __hash__ = None

    def shown(self):
        """All of it that can be compared."""
        headers = [(name.lower(), value) for name, value in self.headers]
        headers = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers]
        return self.start, headers, self.body, self.whole


class _Llhttp:
    """What llhttp calls while it reads, in the words of ``Reading``."""

    def __init__(self):
        self.found, self.trailing = [], False

    def on_message_begin(self):
        self.found.append(Reading())
        self.trailing = False

    def on_url(self, url):
        self.found[-1].start += (url,)

    def on_status(self, _):
        """The reason is nobody's."""

    def on_header(self, name, value):
        if not self.trailing:
            self.found[-1].headers.append((name, value.strip(b" \t")))

    def on_headers_complete(self):
        self.trailing = True

    def on_body(self, body):
        self.found[-1].body += body

    def on_message_complete(self):
        self.found[-1].whole = True


def by_llhttp(data, kind=httptools.HttpRequestParser):
    """The messages that llhttp reads, each with its method or status; ``None`` where it refuses something."""
    told = _Llhttp()
    parser = kind(told)
    plain = told.on_message_complete

    def complete():
        first = parser.get_method() if kind is httptools.HttpRequestParser else parser.get_status_code()
        reading = told.found[-1]
        reading.start = (first, b"".join(reading.start)) if kind is httptools.HttpRequestParser else (first,)
        plain()

    told.on_message_complete = complete
    try:
        parser = kind(told)
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return told.found


def by_h11(data):
    """The first request as h11 reads it; ``None`` where it refuses."""
    connection, reading = h11.Connection(h11.SERVER), Reading()
    try:
        connection.receive_data(data)
        while not isinstance(event := connection.next_event(), (type(h11.NEED_DATA), type(h11.PAUSED))):
            if isinstance(event, h11.Request):
                reading.start = (event.method, event.target)
                reading.headers = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                reading.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reading.whole = True
                break
    except h11.RemoteProtocolError:
        return None
    return reading


class Gate(Target):
    """Requests and answers."""

    words = _WORDS

    def corpus(self):
        host = b" HTTP/1.1\r\nHost: api.allowed.test\r\n"
        second = b"GET /c" + host + b"X_Rewrite_Url: /d\r\n\r\n"
        more = [
            b"GET http://api.allowed.test/v1/a?b=c" + host + b"Accept: */*\r\n\r\n",
            b"POST /v1/a" + host + b"Content-Length: 5\r\nConnection: x-a\r\nX-A: 1\r\n\r\nhello" + second,
            b"POST /v1/a" + host + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + second,
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Keyhole-Error: a\r\nAlt-Svc: b\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        ]
        return [*raw("smuggling/own_requests.jsonl", "smuggling/own_responses.jsonl"), *more]

    def check(self, data, rng):
        if data[:5] == b"HTTP/":
            return self._answer(data, rng)
        ours, sent, outcome = self._requests(data, rng)
        theirs = by_llhttp(data)
        if theirs is not None and ours:
            pairs = list(zip(ours, theirs, strict=False))
            assert len(theirs) >= sum(each.whole for each in ours), "llhttp reads fewer requests than the gate"
            for mine, other in pairs:
                if mine.whole and other.whole:
                    assert mine == other, f"llhttp reads another request: {mine.shown()} {other.shown()}"
        if ours and ours[0].whole and (other := by_h11(data)) is not None:
            assert other == ours[0], f"h11 reads another request: {ours[0].shown()} {other.shown()}"
        for wire, meant in sent:
            self._one(wire, meant)
        return outcome

    def _requests(self, data, rng):
        """What the gate reads, what is sent on of it, and what it says of what comes then."""
        read, sent, rest = [], [], data
        while len(read) < _MOST:
            if rest[:2] == b"\r\n":
                rest = rest[2:]
            end = rest.find(b"\r\n\r\n")
            if end < 0:
                return read, sent, f"waits after {len(read)}"
            reading = Reading()
            try:
                head = parse_request_head(rest[: end + 4], REQUEST_LIMITS)
                for piece in (rest[: rng.randint(0, end + 4)], rest[: end + 4]):
                    check_partial_head(piece)  # refuses nothing at once that would have passed as a whole
                reading.start, reading.headers = (head.method.encode(), head.target), head.headers
                if head.method == "CONNECT":
                    where = gate.connect_authority(head)
                    assert parse_authority(str(where), None) == where
                    return read, sent, "connect"
                tunnel = _TUNNEL if head.target[:1] == b"/" else None
                admitted = gate.admit(head, tunnel, b"", "", b"keyhole")
                decoder = request_decoder(head, REQUEST_LIMITS)
                rest = rest[end + 4 :]
                if decoder is not None and not decoder.done:
                    reading.body = decoder.feed(rest) if rest else b""
                    rest = decoder.surplus
                reading.whole = decoder is None or decoder.done
            except KeyholeError as error:
                return read, sent, f"{len(read)}, then {refused(error)}"
            read.append(reading)
            if reading.whole:
                sent.append(self._sent(admitted.call, reading.body, decoder))
            if not reading.whole or not admitted.persistent:
                return read, sent, f"{len(read)}, {'ends' if reading.whole else 'waits'}"
        return read, sent, "many"

    @staticmethod
    def _sent(call, body, decoder):
        """The bytes for the upstream, with a credential, and what they have to say; nothing where that is refused."""
        authority = Authority(call.host, call.port)
        assert parse_authority(str(authority), None) == authority
        try:
            target = canonical_target(call.target)
        except KeyholeError:
            return b"", None
        chunked = decoder is not None and decoder.length is None
        length = b"" if decoder is None else b"Content-Length: %d\r\n" % len(body)
        framing = b"Transfer-Encoding: chunked\r\n" if chunked and body else length
        headers = [pair for pair in call.headers if pair[0] != b"authorization"]
        headers.append((b"authorization", b"Bearer " + SECRET))
        head = serialise_request(call.method, target, authority.header(call.scheme), headers, framing)
        wire = b"%X\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked and body else body
        return head + wire, (call.method.encode(), target, body)

    @staticmethod
    def _one(wire, meant):
        """Everybody reads exactly one request in it, and it is the one that was meant."""
        if meant is None:
            return
        method, target, body = meant
        readings = [by_h11(wire)]
        if (theirs := by_llhttp(wire)) is not None:
            assert len(theirs) == 1, "llhttp reads more than one request in what is sent on"
            readings += theirs
        for reading in readings:
            assert reading is not None, "h11 refuses what is sent on"
            names = [name.lower() for name, _ in reading.headers]
            assert reading.start == (method, target), "another request is sent on"
            assert (reading.body, reading.whole) == (body, True), "another body is sent on"
            assert names.count(b"host") == 1
            assert names.count(b"authorization") == 1
            spelled = {name.replace(b"_", b"-") for name in names}
            assert not (spelled - {b"transfer-encoding"}) & _NEVER, "what must not pass is sent on"
            assert not any(name.startswith((b"x-keyhole-", b"proxy-", b"x-forwarded-")) for name in spelled)

    @staticmethod
    def _answer(data, rng):
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return "answer: waits"
        reading, method = Reading(), "HEAD" if rng.random() < 0.1 else "GET"
        try:
            head = parse_answer_head(data[: end + 4], REQUEST_LIMITS)
            if head.status < 200:
                return "answer: more comes"
            decoder = answer_decoder(head, method, REQUEST_LIMITS)
            reading.start, reading.headers = (head.status,), head.headers
            if decoder is not None and not decoder.done and len(data) > end + 4:
                reading.body = decoder.feed(data[end + 4 :])
            reading.whole = decoder is None or decoder.done
        except KeyholeError as error:
            return f"answer: {refused(error)}"
        theirs = by_llhttp(data, httptools.HttpResponseParser) if method == "GET" else None
        if theirs and reading.whole and theirs[0].whole:
            assert theirs[0] == reading, f"llhttp reads another answer: {reading.shown()} {theirs[0].shown()}"
        try:
            wire = serialise_answer(head.status, head.reason, head.headers, b"Content-Length: 0\r\n")
        except KeyholeError as error:
            return f"answer: {refused(error)}"
        again = parse_answer_head(wire, _WRITTEN)
        assert (again.status, again.reason.strip()) == (head.status, head.reason.strip())
        kept = {name for name, _ in again.headers}
        assert kept <= {name for name, _ in head.headers} | {b"content-length"}
        assert not kept & {b"x-keyhole-error", b"alt-svc", b"transfer-encoding", b"connection"}
        return f"answer: {type(decoder).__name__}"


_WRITTEN = replace(REQUEST_LIMITS, headers=REQUEST_LIMITS.headers + 1, head_bytes=REQUEST_LIMITS.head_bytes + 64)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SECTION = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")


def plainly(data):
    """A chunked body, read as the RFC says it: the payload and what is behind it; ``None`` for no whole one."""
    payload = b""
    while True:
        line = _SIZE.match(data)
        if line is None:
            return None
        size, data = int(line[1], 16), data[line.end() :]
        if not size:
            section = _SECTION.match(data)
            return None if section is None else (payload, data[section.end() :])
        if data[size : size + 2] != b"\r\n":
            return None
        payload, data = payload + data[:size], data[size + 2 :]


class Chunked(Target):
    """The chunked transfer coding."""

    words = (
        *_WORDS[:4], b"0", b"00", b"1\r\na\r\n", b"A\r\n0123456789\r\n", b";", b';a="b"', b"FFFFFFFFFFFFFFFF\r\n",
        b"x",
    )  # fmt: skip

    def corpus(self):
        return [
            b"5\r\nhello\r\n0\r\n\r\nNEXT",
            b"5;a=b\r\nhello\r\n1\r\nx\r\n0\r\nX-T: 1\r\nA: b\r\n\r\nGET /",
            b"00A\r\n0123456789\r\n000;x\r\n\r\n",
            b"0\r\n\r\n",
        ]

    def check(self, data, rng):
        results = {self._fed([data]), self._fed(cut(data, rng)), self._fed(cut(data, rng))}
        assert len(results) == 1, f"it depends on how it arrives: {results}"
        [(state, payload, surplus)] = results
        model = plainly(data)
        if state == "done":
            assert model == (payload, surplus), "another body than the RFC's"
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = data[: len(data) - len(surplus)]
            for reading in (by_h11(head + body), *(by_llhttp(head + body) or ())):
                assert reading is None or (reading.body, reading.whole) == (payload, True), "others read another body"
        elif state == "waits":
            assert model is None, "the body is whole, and it waits"
        return state

    @staticmethod
    def _fed(pieces):
        decoder, payload = ChunkedDecoder(REQUEST_LIMITS), b""
        try:
            for number, piece in enumerate(pieces):
                payload += decoder.feed(piece)
                if decoder.done:
                    return "done", payload, decoder.surplus + b"".join(pieces[number + 1 :])
        except Malformed as error:
            refused(error)  # for which reason may depend on how it arrives
            return "refused", b"", b""
        return "waits", payload, b""
