"""Kinds that put nothing into a message.

A destination that is only allowed; a client's certificate, which is an attribute of the connection; and answers of our
own to SDKs that ask for a token (RFC 6749, section 5.1).
"""

from __future__ import annotations

import json

from keyhole.core.inject import Inject
from keyhole.core.message import Heard, Message
from keyhole.injections import Steps, Terms


def inject(message: Message, how: Inject, _terms: Terms) -> Steps:
    """Send the message as it is, or answer it."""
    if how.kind == "stand-in":
        message.answered = _token(how)
    yield message


def _token(how: Inject) -> Heard:
    said = {
        "access_token": how["text"],
        "token_type": "Bearer",
        "expires_in": how["lifetime"],
        "ext_expires_in": how["lifetime"],
    }
    content = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return Heard(200, [*headers, (b"content-length", b"%d" % len(content))], content)
