"""One cookie. Whatever the client sent under its name is gone; others stay as they are."""

from __future__ import annotations

from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms
from keyhole.injections.cookies import cookie_value, set_cookie


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set the cookie."""
    [value] = terms.values.values()
    message.headers = set_cookie(message.headers, how["name"].encode(), cookie_value(value))
    yield message
