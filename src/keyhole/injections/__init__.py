"""Shelf: how a secret enters a message. An injection is a generator that any shell can drive.

    steps = inject(message, service.inject, {"value": b"..."})
    message = next(steps)              # the message as it is to be sent; injections of several steps go on with
    ...                                # the upstream's answer: answer = yield message

It changes the message in place, appends to ``message.forms`` every other byte string on the wire that reveals the
secret, and raises ``InvalidRequest`` (naming no value) when the secret cannot stand where it is to be put. Pure.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Generator, Mapping

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Message
from keyhole.core.service import Inject

MEMBERS = {"bearer": "header", "header": "header", "basic": "basic", "placeholder": "placeholder"}
LONGEST = 16 * 1024  # bytes of a secret in a header; common servers take no more
_VISIBLE = re.compile(rb"[\x20-\x7e]+")

Steps = Generator[Message, None, None]


def inject(message: Message, how: Inject, values: Mapping[str, bytes]) -> Steps:
    """Start the injection that ``how`` names. ``values`` are the fields of the loan."""
    return _load(MEMBERS[how.kind])(message, how, values)


@functools.cache
def _load(name: str) -> Callable[[Message, Inject, Mapping[str, bytes]], Steps]:
    member: Callable[[Message, Inject, Mapping[str, bytes]], Steps] = importlib.import_module(
        f"keyhole.injections.{name}"
    ).inject
    return member


def header_value(value: bytes) -> bytes:
    """A secret that is about to stand in a header, unchanged, when it can (RFC 9110, section 5.5).

    Raises:
        InvalidRequest: it is empty, too long, or has a byte that could end or hide a header.
    """
    if not value or len(value) > LONGEST:
        raise InvalidRequest("the secret is empty or longer than a header can be", "look at it: keyhole show NAME")
    if value != value.strip() or _VISIBLE.fullmatch(value) is None:
        raise InvalidRequest(
            "the secret has a line break, a control character, a space at its ends or a character beyond ASCII, "
            "and cannot stand in a header",
            "store it again without them: keyhole set NAME",
        )
    return value
