"""The heads of HTTP/1.1 messages, read in exactly one way or not at all (RFC 9112).

A proxy that attaches credentials must never disagree with the next server about where a message ends. So nothing here
is lenient: no obs-fold, no bare CR or LF, no control bytes, no space before a colon, no lower-case method, no version
but 1.0 and 1.1. Everything is pure: bytes in, a head or an error out. The error says only *what* is wrong; whose fault
it is (400 or 502) is the caller's to say.
"""

from __future__ import annotations

import itertools
import operator
import re
from typing import NamedTuple

from keyhole.core.errors import BadRequestFraming
from keyhole.core.message import Headers
from keyhole.core.names import plain_name
from keyhole.net.http1.limits import WireLimits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # field-vchar, obs-text, SP and HTAB (RFC 9110 section 5.5)

# A method is a token; lower-case letters are refused because upstreams that fold case would then disagree with the
# rule that judged it. Targets have no space, control byte or fragment
# (RFC 9112 section 3.2); bytes above 127, which clients do send, are percent-encoded before they are judged.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/1\.([01])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + _TEXT + rb"*))?\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb"++:" + _TEXT + rb"*+\r\n)*+\r\n")
_STRAY = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TOKENS = re.compile(_TOKEN + rb"++")

# Names that must not be said in another way: CGI, WSGI and many frameworks take an underscore for a hyphen, and some
# servers of CGI whatever is no letter and no digit (RFC 3875 section 4.1.18).
_ALIASED = frozenset(
    {
        b"transfer-encoding",
        b"content-length",
        b"proxy-authorization",
        b"x-forwarded-host",
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-original-host",
        b"x-original-url",
        b"x-rewrite-url",
    }
)
_ODD = re.compile(rb"[^a-z0-9\-]")
_COLONS = itertools.repeat(b":")
_VALUE = operator.itemgetter(1)
_KEPT_SECTION = 4096  # bytes
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"proxy-authorization"})


class Malformed(BadRequestFraming):
    """The bytes are not one well-formed message. Faces answer 400; a client of an upstream turns it into a 502."""


class RequestHead(NamedTuple):
    """A request line and its header section.

    Attributes:
        minor: 0 or 1, the minor version.
        headers: in wire order, names lower-cased, values without surrounding blanks.
        fields: the same by name; of a repeated name the last value.
        major: 1, or 2 for what came by HTTP/2 and has the form of HTTP/1.1 here.
    """

    method: str
    target: bytes
    minor: int
    headers: Headers
    fields: dict[bytes, bytes]
    major: int = 1


class AnswerHead(NamedTuple):
    """A status line and its header section; attributes as in ``RequestHead``."""

    status: int
    reason: bytes
    minor: int
    headers: Headers
    fields: dict[bytes, bytes]


class LastFields:
    """The header section that a connection's client sent last: many send the same one with every request."""

    __slots__ = ("_parsed", "_section")

    def __init__(self) -> None:
        self._section = b""
        self._parsed: tuple[Headers, dict[bytes, bytes]] = ([], {})

    def parse(self, head: bytes, start: int, limits: WireLimits) -> tuple[Headers, dict[bytes, bytes]]:
        """The fields of a head from ``start`` on; nobody may change them. Raises ``Malformed``."""
        section = head[start:]
        if section != self._section:
            self._parsed = _parse_fields(head, start, limits)
            self._section = section if len(section) <= _KEPT_SECTION else b""
        return self._parsed


def parse_request_head(head: bytes, limits: WireLimits, last: LastFields | None = None) -> RequestHead:
    """Read a request head, given up to and including its empty line.

    Args:
        head: the bytes.
        limits: bounds on it; the same for all that ``last`` is given with.
        last: what this client sent before, if it is kept.

    Raises:
        Malformed: for anything that RFC 9112 does not allow a client to generate, or that a limit excludes.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise Malformed("the request line is malformed", "send METHOD SP target SP HTTP/1.1 CRLF")
    method, target, minor = line.groups()
    if len(target) > limits.target_bytes:
        raise Malformed(f"the request target is longer than {limits.target_bytes} bytes")
    if last is None:
        headers, fields = _parse_fields(head, line.end(), limits)
    else:
        headers, fields = last.parse(head, line.end(), limits)
    return RequestHead(method.decode("ascii"), target, 1 if minor == b"1" else 0, headers, fields)


def spelled_names(head: bytes) -> list[bytes]:
    """The names of the header lines of a well-formed head as they were written, in wire order.

    Names are compared without case (RFC 9110 section 5.1); this is for who carries something else in them.
    """
    return [line.partition(b":")[0] for line in head.split(b"\r\n")[1:-2]]


def parse_answer_head(head: bytes, limits: WireLimits) -> AnswerHead:
    """Read an answer's head, given up to and including its empty line.

    Raises:
        Malformed: as for requests; also for HTTP/0.9 and statuses outside 100 to 599.
    """
    line = _STATUS_LINE.match(head)
    if line is None:
        raise Malformed("the status line is malformed")
    minor, status, reason = line.groups()
    headers, fields = _parse_fields(head, line.end(), limits)
    return AnswerHead(int(status), reason or b"", 1 if minor == b"1" else 0, headers, fields)


def _parse_fields(head: bytes, start: int, limits: WireLimits) -> tuple[Headers, dict[bytes, bytes]]:
    if _FIELDS.fullmatch(head, start) is None:
        raise Malformed("a header line is malformed", "send `name: value` CRLF, without folding or control characters")
    end = len(head) - 4
    if start > end:
        return [], {}
    parts = map(bytes.partition, head[start:end].split(b"\r\n"), _COLONS)
    headers: Headers = [(name.lower(), value.strip()) for name, _, value in parts]  # HTAB is the only other white space
    return headers, judged_fields(headers, limits)


def judged_fields(headers: Headers, limits: WireLimits) -> dict[bytes, bytes]:
    """The fields by name, of a repeated name the last value, when together they have one meaning.

    Args:
        headers: well-formed each, names in lower case.
        limits: bounds on them.

    Raises:
        Malformed: too many, too long, one repeated that may not be, or one that imitates another.
    """
    if len(headers) > limits.headers:
        raise Malformed(f"the message has more than {limits.headers} header lines")
    fields = dict(headers)
    if len(fields) != len(headers):
        _refuse_repeated(headers)
    if odd_names(fields) and any(name not in _ALIASED and plain_name(name) in _ALIASED for name in fields):
        raise Malformed("a header name imitates another with an underscore", "use the name with hyphens")
    if headers and max(map(len, map(_VALUE, headers))) > limits.value_bytes:
        raise Malformed(f"a header value is longer than {limits.value_bytes} bytes")
    return fields


def _refuse_repeated(headers: Headers) -> None:
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and name in _SINGLE:
            raise Malformed(f"the header {name.decode('ascii')} is repeated", "send it once")
        seen.add(name)


def check_partial_head(buffer: bytes, start: int = 0) -> None:
    """Refuse at once a head that no further bytes could make well-formed, instead of waiting for its end.

    Args:
        buffer: what has arrived so far.
        start: how much of it was checked before; makes byte-by-byte arrival linear.

    Raises:
        Malformed: on a bare CR or LF, or a control byte.
    """
    if _STRAY.search(buffer, max(0, start - 1)):
        raise Malformed("the message has a bare CR or LF or a control character in its head")


def check_request_line(buffer: bytes) -> None:
    """Refuse a first line that is not a request line of HTTP/1.x (HTTP/0.9, another protocol's banner, ...).

    Raises:
        Malformed: when the first line is complete and wrong.
    """
    if b"\r\n" in buffer and _REQUEST_LINE.match(buffer) is None:
        raise Malformed("the request line is malformed", "send METHOD SP target SP HTTP/1.1 CRLF")


def parse_trailers(section: bytes, limits: WireLimits) -> Headers:
    """The fields of a trailer section (with its empty line); they are judged elsewhere.

    Raises:
        Malformed: when a line is malformed, or a limit excludes it.
    """
    if _FIELDS.fullmatch(section) is None:
        raise Malformed("a trailer line is malformed")
    headers, _ = _parse_fields(section, 0, limits)
    return headers


def odd_names(fields: dict[bytes, bytes]) -> bool:
    """Whether one of the names, all in lower case, has more in it than letters, digits and hyphens."""
    return _ODD.search(b"".join(fields)) is not None


def is_token(value: bytes) -> bool:
    """Whether the bytes are one token (RFC 9110 section 5.6.2)."""
    return _TOKENS.fullmatch(value) is not None


def list_tokens(headers: Headers, name: bytes) -> list[bytes]:
    """The lower-cased members of every header line of this name that holds a comma-separated list of tokens.

    Raises:
        Malformed: when a member is not a token.
    """
    members: list[bytes] = []
    for key, value in headers:
        if key != name:
            continue
        for part in value.split(b","):
            member = part.strip(b" \t").lower()
            if not member:
                continue
            if not is_token(member):
                raise Malformed(f"the header {name.decode('ascii')} has a member that is no token")
            members.append(member)
    return members
