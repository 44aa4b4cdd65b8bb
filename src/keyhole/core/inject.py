"""How a secret is attached: the kinds of injection, their options and the fields of a secret that each needs. Pure.

``KINDS`` is the one table of them. From it come the reader of the ``inject`` object of a service, the choice of the
fields that a loan opens, the words of ``why`` and the options of the command line. What a kind does to a message lies
in ``injections``, one file a kind or family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.kind import Kind, Option, header_name, template, user_name
from keyhole.core.minted import MINTED
from keyhole.core.path import parse_field
from keyhole.core.placed import PLACED
from keyhole.core.signing import SIGNING
from keyhole.core.sql import KIND as SQL
from keyhole.core.ssh import KIND as SSH

_ONE_PLACE = ("bearer", "header", "query", "path", "body", "form", "cookie", "placeholder")
_MOST = 16
_EACH = 'for example [{"kind": "form", "field": "otp", "from": "seed", "as": "totp"}]'


@dataclass(frozen=True, slots=True)
class Inject:
    """How a secret is attached.

    Attributes:
        kind: one of ``KINDS``.
        options: its options in normal form, those with a default included; what is not of the kind is not there.
    """

    kind: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_data(cls, data: Any) -> Inject:
        """Read the ``inject`` object of a service.

        Raises:
            InvalidRequest: there is no such kind or option, or an option has a wrong value.
        """
        if not isinstance(data, Mapping):
            raise InvalidRequest("inject is an object", 'for example {"kind": "bearer"}')
        name = data.get("kind")
        kind = KINDS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise InvalidRequest(f"there is no injection {str(name)[:40]!r}", f"there are {', '.join(KINDS)}")
        known = {option.name for option in kind.options}
        for key in data:
            if key != "kind" and key not in known:
                has = ", ".join(sorted(known)) or "no options"
                raise InvalidRequest(f"the injection {name} has no option {str(key)[:40]!r}", f"it has {has}")
        how = cls(str(name), tuple((option.name, option.read(data.get(option.name))) for option in kind.options))
        kind.check(how)
        return how

    def __getitem__(self, name: str) -> Any:
        for key, value in self.options:
            if key == name:
                return value
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        """An option, or ``default`` when the kind has none of that name."""
        for key, value in self.options:
            if key == name:
                return value
        return default

    def as_data(self) -> dict[str, Any]:
        """The form in which it was given, without options that say what is so anyway."""
        defaults = {option.name: option.default for option in KINDS[self.kind].options}
        return {
            "kind": self.kind,
            **{name: _plain(value) for name, value in self.options if value != defaults[name]},
        }

    @property
    def text(self) -> str:
        """What the client sends in place of the secret, for kinds that replace it; else empty."""
        return str(self.get("text", ""))

    def describe(self) -> str:
        """What it does, in words and without a value."""
        return KINDS[self.kind].describe(self)


def placed(item: Any) -> tuple[Inject, str, str]:
    """One of ``several``: where a value goes, the field of the secret that it is, and what is made of it first.

    Raises:
        InvalidRequest: it is no injection of one value into one place, or names something else that does not exist.
    """
    if not isinstance(item, Mapping):
        raise InvalidRequest("each of several is an object", _EACH)
    how = Inject.from_data({name: value for name, value in item.items() if name not in {"from", "as"}})
    field, derive = item.get("from") or "", item.get("as") or ""
    if how.kind not in _ONE_PLACE or KINDS[how.kind].named(how):
        raise InvalidRequest(f"{how.kind} is not among what can be one of several", f"use {', '.join(_ONE_PLACE)}")
    if derive not in {"", "totp"}:
        raise InvalidRequest("as is totp, or left out", _EACH)
    return how, parse_field(str(field)) if field else "", str(derive)


def _each(value: Any) -> str:
    """The parts of ``several`` as JSON; given as a list, or as such a text."""
    try:
        items = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(items, sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest("each is a list of injections", _EACH) from None
    if not isinstance(items, list) or not 1 <= len(items) <= _MOST:
        raise InvalidRequest(f"each is a list of 1 to {_MOST} injections", _EACH)
    fields = [field for _, field, _ in map(placed, items)]
    if not all(fields) and len(fields) > 1:
        raise InvalidRequest("each of several says from which field of the secret it comes", _EACH)
    return text


def _described(how: Inject) -> str:
    parts = [placed(item) for item in json.loads(how["each"])]
    return "; ".join(f"{part.describe()}{' (a one-time password)' if derive else ''}" for part, _, derive in parts)


def _fields_of_each(how: Inject) -> tuple[str, ...]:
    fields = (field for _, field, _ in map(placed, json.loads(how["each"])))
    return tuple(dict.fromkeys(filter(None, fields)))


KINDS: dict[str, Kind] = {
    "bearer": Kind("as Authorization: Bearer (RFC 6750)", lambda _: "authorization: Bearer ***"),
    "basic": Kind(
        "as Authorization: Basic (RFC 7617)",
        lambda how: f"authorization: Basic base64({how['user'] + ':' if how['user'] else ''}***)",
        (Option("user", user_name, "", "the user name, where the value is the password alone"),),
        fields=(("username", "password"),),
    ),
    "header": Kind(
        "as a header of its own",
        lambda how: f"{how['name']}: {how['template'].replace('{}', '***')}",
        (
            Option("name", header_name, help="the header"),
            Option("template", template, "{}", "text of the header, with one {}"),
        ),
    ),
    "oauth2": Kind(
        "the access token of a connection (RFC 6750), with another one when it is refused; see OAuth",
        lambda how: f"{how['name']}: {how['template'].replace('{}', '***')}",
        (
            Option("name", header_name, "authorization", "header that carries the token"),
            Option("template", template, "Bearer {}", "text of the header, with one {}"),
        ),
    ),
    "several": Kind(
        "as several of these at once, each with a field of the secret, or the one-time password of this moment",
        _described,
        (Option("each", _each, help="a JSON list of injections, each with from: FIELD, and as: totp for a seed"),),
        named=_fields_of_each,
    ),
    **PLACED,
    **MINTED,
    **SIGNING,
    **SQL,
    **SSH,
}


def _plain(value: Any) -> Any:
    """The normal form of an option as JSON has it: tables are made of pairs, lists of texts."""
    if not isinstance(value, tuple):
        return value
    return dict(value) if value and isinstance(value[0], tuple) else list(value)
