"""Several fields of one secret at once, each in a place of its own: user name, password and one-time password, say."""

from __future__ import annotations

import functools
import json
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject, placed
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms, totp
from keyhole.injections import inject as start
from keyhole.injections import needs_content as needs


def needs_content(message: Message, how: Inject) -> bool:
    """Whether one of the places is in the body."""
    return any(needs(message, part) for part, _, _ in _parts(how["each"]))


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Attach one after the other."""
    for part, field, derive in _parts(how["each"]):
        [value] = [terms.values[field]] if field else terms.values.values()
        if derive == "totp":
            value = totp.code(value, terms.now)
        if not value:
            raise InvalidRequest("a field of the secret is empty", "look at it: keyhole show NAME")
        for changed in start(message, part, Terms({"value": value}, terms.now, terms.kept)):
            message = changed
    yield message


@functools.lru_cache(maxsize=256)
def _parts(text: str) -> tuple[tuple[Inject, str, str], ...]:
    each: list[dict[str, Any]] = json.loads(text)
    return tuple(placed(item) for item in each)
