"""HTTP/2: a header section that passes is the same request in both protocols, as it is sent on in either."""

import hpack

from fuzzing.engine import Target, refused
from fuzzing.http import SECRET, Gate
from keyhole.core.errors import KeyholeError
from keyhole.core.host import DEFAULT_PORTS, Authority, parse_authority
from keyhole.core.message import Message
from keyhole.core.url import canonical_target
from keyhole.faces.proxy import gate
from keyhole.net.http1.limits import REQUEST_LIMITS
from keyhole.net.http2.head import check_trailers, read_request
from keyhole.net.http2.requests import encode_request

FIELD, VALUE = b"\xfe", b"\xfd"
"""What stands before a field and before its value in an input; neither is in UTF-8."""
_OURS = {b"x-forwarded-for", b"connection", b"upgrade", b"host", b"te", b"proxy-authorization", b"transfer-encoding"}


def section(*fields):
    """An input of these fields."""
    return b"".join(FIELD + name + VALUE + value for name, value in fields)


def _start(method, path=b"/v1/a?b=c", scheme=b"https", authority=b"api.allowed.test"):
    return (b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)


class Http2(Target):
    """Header sections of requests, and trailers."""

    words = (
        *(FIELD, VALUE, FIELD + b"host" + VALUE + b"api.allowed.test", FIELD + b"cookie" + VALUE + b"a=b"),
        *(
            b":path",
            b":method",
            b":scheme",
            b":authority",
            b":protocol",
            b"CONNECT",
            b"websocket",
            b"\r\n",
            b"\0",
            b"X-Upper",
        ),
        *(FIELD + b"transfer-encoding" + VALUE + b"chunked", FIELD + b"content-length" + VALUE + b"5", b"connection"),
        *(
            FIELD + b"te" + VALUE + b"trailers",
            FIELD + b"x_forwarded_host" + VALUE + b"a",
            b"/../",
            b"%2e",
            b"@",
            b"#",
            b" ",
        ),
        *(
            b"api.allowed.test:443",
            b"http",
            b"*",
            b"GET /x HTTP/1.1\r\n",
            FIELD + b"upgrade" + VALUE + b"h2c",
            b"?",
            b"\\",
        ),
    )

    def corpus(self):
        return [
            section(*_start(b"GET"), (b"accept", b"*/*"), (b"cookie", b"a=b"), (b"cookie", b"c=d")),
            section(*_start(b"POST"), (b"content-length", b"5"), (b"te", b"trailers"), (b"via", b"2 other")),
            section(*_start(b"GET", scheme=b"http", authority=b"[::1]:8080"), (b"host", b"[::1]:8080")),
            section(*_start(b"CONNECT"), (b":protocol", b"websocket"), (b"sec-websocket-version", b"13")),
            section((b":method", b"CONNECT"), (b":authority", b"api.allowed.test:443")),
            section((b"x-checksum", b"abc")),
        ]

    def check(self, data, rng):
        fields = [(name, value) for name, _, value in (part.partition(VALUE) for part in data.split(FIELD)[1:])]
        try:
            check_trailers(fields, REQUEST_LIMITS, last=True)
        except KeyholeError as error:
            refused(error)
        else:
            assert not any(name[:1] == b":" for name, _ in fields)
        try:
            request = read_request(fields, REQUEST_LIMITS)
            if request.head.method == "CONNECT":
                where = gate.connect_authority(request.head)
                assert parse_authority(str(where), None) == where
                return "connect"
            where = parse_authority(request.authority, DEFAULT_PORTS[request.scheme])
            tunnel = gate.Tunnel(request.scheme, where.host, where.port, b"")
            call = gate.admit(request.head, tunnel, b"", "", b"keyhole").call
            target = canonical_target(call.target)
        except KeyholeError as error:
            return refused(error)
        assert (call.host, call.port, call.scheme) == (where.host, where.port, request.scheme)
        if not call.upgrade:
            Gate._one(*Gate._sent(call, b"", None))
        self._as_http2(call, target)
        return f"{call.scheme} {call.upgrade or 'plain'} {'length' if request.length else ''}"

    @staticmethod
    def _as_http2(call, target):
        headers = [pair for pair in call.headers if pair[0] != b"authorization"]
        headers.append((b"authorization", b"Bearer " + SECRET))
        authority = Authority(call.host, call.port).header(call.scheme)
        message = Message(call.method, call.scheme, call.host, call.port, target, headers)
        block = encode_request(message, authority, None)
        found = hpack.Decoder().decode(block, raw=True)
        decoded = [(bytes(name), bytes(value)) for name, value in found]
        again = read_request(decoded, REQUEST_LIMITS)
        assert again.head.target == target
        assert (again.head.method, again.scheme, again.authority) == (call.method, call.scheme, authority)
        names = [name for name, _ in decoded]
        assert names.count(b"authorization") == 1
        assert not {name.replace(b"_", b"-") for name in names} & _OURS, "what must not pass is sent on"
