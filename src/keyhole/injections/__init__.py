"""Shelf: how a secret enters a message. An injection is a generator that any shell can drive.

    steps = inject(message, service.inject, Terms({"value": b"..."}, now, kept))
    message = next(steps)              # the message as it is to be sent
    message = steps.send(heard)        # after its answer: another message to send instead (a challenge was answered),
    ...                                # or StopIteration: that was the answer

It changes the message in place, appends to ``message.forms`` every other byte string on the wire that reveals the
secret, and raises ``InvalidRequest`` (naming no value) when the secret cannot stand where it is to be put. A message
with ``errand`` set goes to some other place first, and what is heard of it has a body. Pure: whoever drives it sends,
reads the clock, and holds the body when ``needs_content`` says so.

A member is a module with ``inject``, and with ``needs_content(message, how)`` where the kind works on bodies.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Heard, Message

MEMBERS = {
    "bearer": "header",
    "basic": "basic",
    "header": "header",
    "headers": "header",
    "oauth2": "header",
    "cookie": "cookie",
    "query": "query",
    "path": "placeholder",
    "body": "body",
    "form": "form",
    "digest": "digest",
    "several": "several",
    "placeholder": "placeholder",
    "sigv4": "sigv4",
    "hmac": "recipe",
    "oauth1": "oauth1",
    "azure-storage": "azure_storage",
    "jwt": "minted.jwt",
    "github-app": "minted.github_app",
    "gcp": "minted.gcp",
    "client-credentials": "minted.client_credentials",
    "azure": "minted.client_credentials",
    "mtls": "nothing",
    "none": "nothing",
    "stand-in": "nothing",
}
LONGEST = 16 * 1024  # bytes of a secret in a header; common servers take no more
_NONCE = 16  # bytes
_VISIBLE = re.compile(rb"[\x20-\x7e]+")

Steps = Generator[Message, Heard, None]


@dataclass(slots=True)
class Terms:
    """What an injection works with, and does not change.

    Attributes:
        values: the fields of the loan.
        now: seconds since the epoch.
        kept: what earlier loans of these same values through this service left for later ones, such as a token with
            its end. It is forgotten when the vault is sealed, and starts empty when a value changes.
        nonce: random bytes that nobody else has, for this call; ask ``nonce_of``, as most injections need none.
    """

    values: Mapping[str, bytes] = field(repr=False)
    now: float = 0.0
    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    nonce: bytes = b""


def nonce_of(terms: Terms) -> bytes:
    """The nonce of a call, drawn when it is first asked for."""
    if not terms.nonce:
        terms.nonce = os.urandom(_NONCE)
    return terms.nonce


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Start the injection that ``how`` names."""
    steps: Steps = _load(MEMBERS[how.kind]).inject(message, how, terms)
    return steps


def needs_content(message: Message, how: Inject) -> bool:
    """Whether the injection works on the whole body of this message."""
    needs = getattr(_load(MEMBERS[how.kind]), "needs_content", None)
    return needs is not None and bool(needs(message, how))


@functools.cache
def _load(name: str) -> ModuleType:
    return importlib.import_module(f"keyhole.injections.{name}")


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
