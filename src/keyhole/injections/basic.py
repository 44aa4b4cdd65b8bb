"""HTTP Basic (RFC 7617), from one value ``user:password`` or from the fields ``username`` and ``password``."""

from __future__ import annotations

import base64

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import LONGEST, Steps, Terms
from keyhole.injections.credentials import user_and_password


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set ``Authorization``; whatever the client sent there is gone."""
    values = terms.values
    user, password = user_and_password(how, values)
    credentials = user + b":" + password
    if any(byte < 0x20 or byte == 0x7F for byte in credentials):
        raise InvalidRequest("the user name or password has a control character", "store it again: keyhole set NAME")
    if not any(values.values()) or len(credentials) > LONGEST:
        raise InvalidRequest("the secret is empty or longer than a header can be", "look at it: keyhole show NAME")
    encoded = base64.b64encode(credentials)
    message.set(b"authorization", b"Basic " + encoded)
    message.forms += [encoded, credentials, password, *([user] if len(values) > 1 else [])]
    yield message
