"""Sets a field within a ``multipart/form-data`` body (RFC 7578, RFC 2046 section 5.1); other parts stay byte for byte.

Only bodies that can be read in one way: no preamble, an end, every delimiter on a line of its own, and a name in each
part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keyhole.core.errors import InvalidRequest

_BOUNDARY = re.compile(rb"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
_DISPOSITION = re.compile(rb"form-data(?=\s*;)", re.IGNORECASE)
_PARAMETER = re.compile(rb"\s*;\s*([A-Za-z0-9*_-]+)\s*=\s*(?:\"((?:[^\"\\\r\n]|\\.)*)\"|([^\s\";]+))")
_HEADER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([^\r\n\0]*)")


def set_field(content: bytes, boundary: bytes, name: str, value: bytes) -> bytes:
    """The body with the field set: in place of the first part of its name, or behind the last.

    Args:
        content: the body.
        boundary: as the content type says.
        name: of the field.
        value: of the field.

    Raises:
        InvalidRequest: the body could be read in two ways, or the value would end its part.
    """
    if _BOUNDARY.fullmatch(boundary) is None:
        raise _unreadable("its boundary is missing or malformed")
    delimiter = b"--" + boundary
    if delimiter in value:
        raise InvalidRequest("the secret has the boundary of the multipart body in it", "send another boundary")
    own = b'\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b' % (_escape(name), value)
    parts: list[bytes] = []
    placed = False
    pieces = list(_pieces(content, delimiter))
    for piece in pieces[:-1]:
        if _name(piece) != name.encode():
            parts.append(piece)
        elif not placed:
            parts.append(own)
            placed = True
    if not placed:
        parts.append(own)
    return delimiter + (b"\r\n" + delimiter).join([*parts, pieces[-1]])


def _pieces(content: bytes, delimiter: bytes) -> Iterator[bytes]:
    """What stands between delimiters: parts that begin with the rest of the delimiter's line, then the end."""
    if not content.startswith(delimiter):
        raise _unreadable("it does not begin with its boundary")
    found = content[len(delimiter) :].split(b"\r\n" + delimiter)
    for piece in found[:-1]:
        if not piece.lstrip(b" \t").startswith(b"\r\n"):
            raise _unreadable("a boundary is not on a line of its own")
        if piece.count(b"\n" + delimiter):
            raise _unreadable("a line ends without a carriage return before a boundary")
        yield piece
    if found[-1] not in {b"--", b"--\r\n"}:
        raise _unreadable("it has no end, or something behind it")
    yield found[-1]


def _name(piece: bytes) -> bytes:
    """The name of the field in a part."""
    head, end, _ = piece.lstrip(b" \t").partition(b"\r\n\r\n")
    lines = [_HEADER.fullmatch(line) for line in head.split(b"\r\n")[1:]]
    dispositions = [line[2] for line in lines if line is not None and line[1].lower() == b"content-disposition"]
    if not end or None in lines or len(dispositions) != 1:
        raise _unreadable("a part has no head that can be read in one way")
    names: list[bytes] = []
    match = _DISPOSITION.match(dispositions[0])
    at = match.end() if match else -1
    while 0 <= at < len(dispositions[0].rstrip()):
        parameter = _PARAMETER.match(dispositions[0], at)
        if parameter is None:
            at = -1
            break
        at = parameter.end()
        if parameter[1].lower() in {b"name", b"name*"}:
            names.append(_unescape(parameter[2]) if parameter[2] is not None else parameter[3])
            if parameter[1].endswith(b"*"):
                at = -1
    if at < 0 or len(names) != 1:
        raise _unreadable("a part has no name that can be read in one way")
    return names[0]


def _escape(name: str) -> bytes:
    """As browsers do (WHATWG HTML, section 4.10.22.8); other characters are visible ones."""
    return name.replace('"', "%22").encode()


def _unescape(name: bytes) -> bytes:
    return re.sub(rb"\\([\"\\])", rb"\1", name).replace(b"%22", b'"')


def _unreadable(why: str) -> InvalidRequest:
    return InvalidRequest(f"the multipart body cannot be read in one way: {why}", "send it as RFC 7578 says")
