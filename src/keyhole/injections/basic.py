"""HTTP Basic (RFC 7617), from one value ``user:password`` or from the fields ``username`` and ``password``."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import LONGEST, Steps, Terms


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set ``Authorization``; whatever the client sent there is gone."""
    values = terms.values
    credentials = _credentials(how, values)
    if any(byte < 0x20 or byte == 0x7F for byte in credentials):
        raise InvalidRequest("the user name or password has a control character", "store it again: keyhole set NAME")
    if not any(values.values()) or len(credentials) > LONGEST:
        raise InvalidRequest("the secret is empty or longer than a header can be", "look at it: keyhole show NAME")
    encoded = base64.b64encode(credentials)
    message.set(b"authorization", b"Basic " + encoded)
    user, _, password = credentials.partition(b":")
    message.forms += [encoded, credentials, password, *([user] if len(values) > 1 else [])]
    yield message


def _credentials(how: Inject, values: Mapping[str, bytes]) -> bytes:
    if "username" in values and "password" in values:
        user, password = values["username"], values["password"]
        if b":" in user:
            raise InvalidRequest("the user name has a colon, which Basic cannot carry (RFC 7617, section 2)")
        return user + b":" + password
    [value] = values.values()
    if how["user"]:
        return str(how["user"]).encode() + b":" + value
    if b":" not in value:
        raise InvalidRequest(
            "the secret has no user name",
            'store it as user:password, or as fields: keyhole set NAME --json-in < {"username": …, "password": …}',
        )
    return value
