"""Query parameters. Whatever the client sent under their names is gone; all others stay byte for byte, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms
from keyhole.injections.parameters import encode, set_parameter, target_value


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Set the parameter, or each of them."""
    path, _, query = message.target.partition(b"?")
    for name, value in _wanted(how, terms.values):
        query = set_parameter(query, name, target_value(value))
        message.wrote(value, encode(value))
    message.target = path + b"?" + query
    yield message


def _wanted(how: Inject, values: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    if how["name"]:
        [value] = values.values()
        yield how["name"], value
    else:
        for name, field in how["params"]:
            yield name, values[field]
