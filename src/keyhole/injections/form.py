"""A field of a form, urlencoded or multipart. Other fields stay byte for byte; without a body there is a new form."""

from __future__ import annotations

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms, multipart
from keyhole.injections.content import change, media_type, require_body, require_plain
from keyhole.injections.parameters import FORM, encode, require_few, set_parameter

_MULTIPART = b"multipart/form-data"


def needs_content(_message: Message, _how: Inject) -> bool:
    """The whole body."""
    return True


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set the field."""
    [value] = terms.values.values()
    if not value:
        raise InvalidRequest("the secret is empty", "look at it: keyhole show NAME")
    require_plain(message)
    require_body(message)
    content = message.content or b""
    if not content:
        message.set(b"content-type", FORM)
    kind, parameters = media_type(message)
    if kind == FORM:
        require_few(content)
        change(message, set_parameter(content, how["field"], value))
        message.wrote(value, encode(value))
    elif kind == _MULTIPART:
        change(message, multipart.set_field(content, parameters.get(b"boundary", b""), how["field"], value))
    else:
        raise InvalidRequest(
            "the secret is bound to a field of a form, and the body says to be something else",
            f"send it as {FORM.decode()} or {_MULTIPART.decode()}",
        )
    yield message
