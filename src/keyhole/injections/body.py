"""A field of a JSON body. The rest of the document stays byte for byte; without a body there is one with that field."""

from __future__ import annotations

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.placed import field_path
from keyhole.injections import Steps, Terms
from keyhole.injections.content import change, media_type, require_body, require_plain
from keyhole.injections.json_text import quoted, set_field

_JSON = b"application/json"
_UTF8 = frozenset({b"utf-8", b"utf8", b"us-ascii"})


def needs_content(_message: Message, _how: Inject) -> bool:
    """The whole body."""
    return True


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set the field to the secret, as a text."""
    [value] = terms.values.values()
    if not value:
        raise InvalidRequest("the secret is empty", "look at it: keyhole show NAME")
    require_plain(message)
    require_body(message)
    if message.content:
        _require_json(message)
    else:
        message.set(b"content-type", _JSON)
    change(message, set_field(message.content or b"{}", field_path(how["field"]), value))
    message.wrote(value, quoted(value)[1:-1])
    yield message


def _require_json(message: Message) -> None:
    kind, parameters = media_type(message)
    if kind != _JSON and not kind.endswith(b"+json"):
        raise InvalidRequest(
            "the secret is bound to a field of a JSON body, and the body says to be something else",
            "send JSON with Content-Type: application/json",
        )
    if parameters.get(b"charset", b"utf-8").lower() not in _UTF8:
        raise InvalidRequest("the JSON body is not in UTF-8", "send it in UTF-8 (RFC 8259, section 8.1)")
