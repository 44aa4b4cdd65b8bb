"""Headers of their own: ``Authorization: Bearer SECRET`` (RFC 6750), ``X-Api-Key: SECRET`` and their like."""

from __future__ import annotations

from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms, header_value


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set the header, or each of them; whatever the client sent under these names is gone."""
    if how.kind == "headers":
        for name, field in how["headers"]:
            message.set(name.encode(), header_value(terms.values[field]))
        yield message
        return
    [value] = terms.values.values()
    if how.kind == "bearer":
        message.set(b"authorization", b"Bearer " + header_value(value))
    else:
        before, _, after = str(how["template"]).encode().partition(b"{}")
        message.set(str(how["name"]).encode(), before + header_value(value) + after)
    yield message
