"""A header of its own: ``Authorization: Bearer SECRET`` (RFC 6750), ``X-Api-Key: SECRET`` and their like."""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.message import Message
from keyhole.core.service import Inject
from keyhole.injections import Steps, header_value


def inject(message: Message, how: Inject, values: Mapping[str, bytes]) -> Steps:
    """Set the header; whatever the client sent under this name is gone."""
    [value] = values.values()
    before, _, after = how.template.encode().partition(b"{}")
    message.set(how.name.encode(), before + header_value(value) + after)
    yield message
