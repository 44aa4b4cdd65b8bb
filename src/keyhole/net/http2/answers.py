"""From a header section of HTTP/2 to the head of an answer, or an error (RFC 9113 section 8.3.2). Pure."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

from keyhole.core.message import Headers
from keyhole.net.http1.framing import declared_length
from keyhole.net.http1.grammar import Malformed, judged_fields
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.serialise import HOP_BY_HOP
from keyhole.net.http2.head import check_fields

_STATUS = re.compile(rb"[1-5][0-9][0-9]")
_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class Http2AnswerHead(NamedTuple):
    """The head of an answer.

    Attributes:
        headers: end-to-end headers, ``content-length`` as declared.
        length: declared bytes of the body.
        bodiless: it cannot have a body.
    """

    status: int
    headers: Headers
    length: int | None
    bodiless: bool

    @property
    def reason(self) -> bytes:
        """The usual phrase: HTTP/2 has none, and clients of HTTP/1.1 show one."""
        return _REASONS.get(self.status, b"")


def read_answer(section: Headers, method: str, limits: WireLimits) -> Http2AnswerHead:
    """Judge a header section that is no trailer section. Raises ``Malformed``."""
    if not section or section[0][0] != b":status" or _STATUS.fullmatch(section[0][1]) is None:
        raise Malformed("the header section does not begin with a status")
    status = int(section[0][1])
    if status == 101:
        raise Malformed("HTTP/2 has no status 101")
    headers = section[1:]
    check_fields(headers)  # refuses any other pseudo-header field: its name is no token
    fields = judged_fields(headers, limits)
    declared = fields.get(b"content-length")
    length = None if declared is None else declared_length(declared)
    bodiless = method == "HEAD" or status in {204, 304}
    if not HOP_BY_HOP.isdisjoint(fields):
        headers = [pair for pair in headers if pair[0] not in HOP_BY_HOP]
    return Http2AnswerHead(status, headers, length, bodiless)
