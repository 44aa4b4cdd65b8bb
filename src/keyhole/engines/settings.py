"""Roles as tables: what may be set, in which form, and what holds when it is not said."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyhole.core.fields import parse_map, parse_switch, parse_text, parse_texts
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count
from keyhole.engines import Field, FieldType

Parser = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a role.

    Attributes:
        name: of the field.
        parse: from what was sent, and the name for an error, to what is stored.
        default: what is stored when it is not said.
        help: for documentation.
        type: what it takes, for documentation.
    """

    name: str
    parse: Parser
    default: Any
    help: str = ""
    type: FieldType = "any"


def text(name: str, default: str = "", about: str = "") -> Setting:
    """A text."""
    return Setting(name, parse_text, default, about, "string")


def switch(name: str, about: str = "", *, default: bool = False) -> Setting:
    """Yes or no."""
    return Setting(name, parse_switch, default, about, "boolean")


def seconds(name: str, about: str = "", *, default: int = 0) -> Setting:
    """A duration."""
    return Setting(
        name, lambda value, field: parse_duration("" if value is None else value, name=field), default, about
    )


def count(name: str, default: int = 0, about: str = "", *, most: int = 10**9) -> Setting:
    """A whole number."""
    return Setting(name, lambda value, field: parse_count(value, field, most=most), default, about, "integer")


def texts(name: str, about: str = "", *, default: Sequence[str] = ()) -> Setting:
    """A list of texts."""
    return Setting(name, parse_texts, list(default), about, "list")


def pairs(name: str, about: str = "") -> Setting:
    """Texts by name."""
    return Setting(name, parse_map, {}, about, "map")


def read(table: Sequence[Setting], data: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is to be stored.

    Args:
        table: the settings that there are; other fields are none of them, and are passed over.
        data: of the request.
        stored: what holds for fields that were not sent; the defaults when it is not given.

    Raises:
        InvalidRequest: a field is not in its form.
    """
    found: dict[str, Any] = {}
    for setting in table:
        if setting.name in data:
            found[setting.name] = setting.parse(data[setting.name], setting.name)
        else:
            before = setting.default if stored is None else stored.get(setting.name, setting.default)
            found[setting.name] = copy.deepcopy(before)
    return found


def fields(table: Sequence[Setting]) -> tuple[Field, ...]:
    """The settings as fields of a route."""
    return tuple(Field(setting.name, setting.help, setting.type) for setting in table)
