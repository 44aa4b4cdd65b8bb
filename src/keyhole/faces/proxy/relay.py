"""The answer with which a connection changes its protocol; what follows is carried by ``keyhole.net.carry``."""

from __future__ import annotations

from keyhole.core.message import Answer
from keyhole.net.http1.serialise import serialise_answer


def switching(answer: Answer, via: bytes) -> bytes:
    """The head of a 101 (RFC 9110 section 15.2.2). Raises ``InvalidRequest`` for a header that would break it."""
    extra = b"%bConnection: Upgrade\r\nUpgrade: %b\r\n" % (via, answer.upgrade.encode("ascii"))
    return serialise_answer(answer.status, answer.reason or b"Switching Protocols", answer.headers, extra)
