"""A text that the client was given in place of the secret, replaced where the service says so.

In headers it is replaced wherever it stands, also inside the base64 of ``Authorization: Basic``, which is where git
and many SDKs put it. A message without the text is sent as it is: tools that first ask without a credential work.
"""

from __future__ import annotations

import base64
import binascii

from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms, header_value

_BASIC = b"basic "
_CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-authorization"})


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Replace the text in every header."""
    [value] = terms.values.values()
    text = how["text"].encode()
    headers = []
    for name, content in message.headers:
        if text in content:
            headers.append((name, content.replace(text, header_value(value))))
        elif name in _CREDENTIAL_HEADERS and content[: len(_BASIC)].lower() == _BASIC:
            headers.append((name, _inside_basic(message, content, text, value)))
        else:
            headers.append((name, content))
    message.headers = headers
    yield message


def _inside_basic(message: Message, content: bytes, text: bytes, value: bytes) -> bytes:
    """The credentials with the text replaced; as they were when it is not in them or they are not base64."""
    decoded = decode_basic(content)
    if decoded is None or text not in decoded:
        return content
    replaced = decoded.replace(text, header_value(value))
    encoded = base64.b64encode(replaced)
    message.forms += [encoded, replaced]
    return content[: len(_BASIC)] + encoded


def shows(content: bytes, text: bytes) -> bool:
    """Does a header's value carry this text, as it is or inside Basic credentials?"""
    return text in content or text in (decode_basic(content) or b"")


def decode_basic(content: bytes) -> bytes | None:
    """What an ``Authorization: Basic`` value carries; ``None`` for anything else."""
    if content[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        return base64.b64decode(content[len(_BASIC) :].strip(), validate=True)
    except binascii.Error:
        return None
