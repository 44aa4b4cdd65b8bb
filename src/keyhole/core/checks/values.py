"""What a condition asks of one value: one of some, a shape, a range, or that it is not there. Pure.

    ["eur", "usd"]                      one of these
    "prod-*"                            a text, where * stands for anything
    {"min": 1, "max": 5000}             a plain decimal number in this range
    {"absent": true}                    must not be there
    {"in": ["eur"], "optional": true}   judged where it is there; without "optional" it must be

A number in a text is digits, at most one sign and one point: what one reader takes for hexadecimal, octal or a power,
and another for zero, is no number here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from keyhole.core.errors import InvalidRequest

Scalar = str | int | Decimal | bool | None

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?")
_KNOWN = frozenset({"in", "like", "min", "max", "absent", "optional"})
_LIMIT = 64
_LONGEST = 512
_HINT = 'a list of values, a text with *, or an object with "in", "like", "min", "max", "absent" or "optional"'


@dataclass(frozen=True, slots=True)
class ValueTest:
    """One condition on one value.

    Attributes:
        one_of: the values of which it must be one; ``None`` for any.
        like: its pieces between the stars; ``None`` for any text.
        least, most: the range of a number.
        absent: it must not be there.
        optional: it need not be there.
    """

    one_of: tuple[Scalar, ...] | None = None
    like: tuple[str, ...] | None = None
    least: Decimal | None = None
    most: Decimal | None = None
    absent: bool = False
    optional: bool = False

    @classmethod
    def from_data(cls, data: Any, name: str) -> ValueTest:
        """Read a condition. Raises ``InvalidRequest`` that names it as ``name``."""
        if isinstance(data, str):
            return cls(like=_pieces(data, name))
        if isinstance(data, list | tuple):
            return cls(one_of=_values(data, name))
        if not isinstance(data, Mapping) or not data or data.keys() - _KNOWN:
            raise InvalidRequest(f"the condition on {name!r} is none that is known", _HINT)
        test = cls(
            _values(data["in"], name) if "in" in data else None,
            _pieces(data["like"], name) if "like" in data else None,
            _bound(data.get("min"), name),
            _bound(data.get("max"), name),
            _flag(data, "absent", name),
            _flag(data, "optional", name),
        )
        judges = [test.one_of, test.like, test.least, test.most]
        if test.absent == any(part is not None for part in judges):
            raise InvalidRequest(f"the condition on {name!r} asks for nothing, or for two things at once", _HINT)
        return test

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        data: dict[str, Any] = {}
        if self.one_of is not None:
            data["in"] = [_plain(value) for value in self.one_of]
        if self.like is not None:
            data["like"] = "*".join(self.like)
        if self.least is not None:
            data["min"] = _plain(self.least)
        if self.most is not None:
            data["max"] = _plain(self.most)
        return data | {name: True for name in ("absent", "optional") if getattr(self, name)}

    def holds_text(self, text: str) -> bool:
        """Whether a text from a query or a form is as the condition wants it."""
        if self.absent or (self.one_of is not None and text not in {_text(value) for value in self.one_of}):
            return False
        if self.like is not None and not _is_like(self.like, text):
            return False
        if self.least is None and self.most is None:
            return True
        return _NUMBER.fullmatch(text) is not None and self._in_range(Decimal(text))

    def holds_json(self, value: Any) -> bool:
        """Whether a JSON value is; a number that was sent as a text is not the number."""
        if self.absent or (self.one_of is not None and not any(_same(value, one) for one in self.one_of)):
            return False
        if self.like is not None and not (isinstance(value, str) and _is_like(self.like, value)):
            return False
        if self.least is None and self.most is None:
            return True
        return isinstance(value, int | Decimal) and not isinstance(value, bool) and self._in_range(Decimal(value))

    def _in_range(self, number: Decimal) -> bool:
        return (self.least is None or number >= self.least) and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        """The condition in words."""
        if self.absent:
            return "absent"
        words = [] if self.one_of is None else [" or ".join(_text(value) for value in self.one_of)]
        words += [] if self.like is None else [f"like {'*'.join(self.like)}"]
        words += [] if self.least is None else [f"at least {_plain(self.least)}"]
        words += [] if self.most is None else [f"at most {_plain(self.most)}"]
        return ", ".join(words) + (" or absent" if self.optional else "")


def _values(data: Any, name: str) -> tuple[Scalar, ...]:
    if not isinstance(data, list | tuple) or not 0 < len(data) <= _LIMIT:
        raise InvalidRequest(f"the condition on {name!r} needs a list of 1 to {_LIMIT} values", _HINT)
    return tuple(_scalar(value, name) for value in data)


def _scalar(value: Any, name: str) -> Scalar:
    if isinstance(value, float):
        return _bound(value, name)
    if value is None or isinstance(value, int | Decimal) or (isinstance(value, str) and len(value) <= _LONGEST):
        return value
    raise InvalidRequest(f"the condition on {name!r} has a value that is no short text, number, true, false or null")


def _pieces(data: Any, name: str) -> tuple[str, ...]:
    if not isinstance(data, str) or not 0 < len(data) <= _LONGEST:
        raise InvalidRequest(f"the condition on {name!r} needs a text of 1 to {_LONGEST} characters", _HINT)
    return tuple(data.split("*"))


def _bound(value: Any, name: str) -> Decimal | None:
    if value is None:
        return None
    text = "" if isinstance(value, bool) else format(value, "f") if isinstance(value, float | Decimal) else str(value)
    if isinstance(value, float):
        text = format(Decimal(repr(value)), "f")
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"the condition on {name!r} needs a plain decimal number", '{"max": 5000}')
    return Decimal(text)


def _flag(data: Mapping[str, Any], flag: str, name: str) -> bool:
    value = data.get(flag, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"the condition on {name!r}: {flag} is true or false")
    return value


def _same(value: Any, wanted: Scalar) -> bool:
    """Equal as JSON: ``true`` is not 1, and a text is not a number."""
    if isinstance(value, bool) or isinstance(wanted, bool) or value is None or wanted is None:
        return value is wanted
    if isinstance(value, str) or isinstance(wanted, str):
        return isinstance(value, str) and isinstance(wanted, str) and value == wanted
    return isinstance(value, int | Decimal) and value == wanted


def _plain(value: Scalar) -> Any:
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def _text(value: Scalar) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(_plain(value))


def _is_like(pieces: tuple[str, ...], text: str) -> bool:
    """Match greedily from the left, in time proportional to both."""
    if len(pieces) == 1:
        return pieces[0] == text
    head, *middle, tail = pieces
    if len(text) < len(head) + len(tail) or not (text.startswith(head) and text.endswith(tail)):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
