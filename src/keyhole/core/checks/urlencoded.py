"""Queries and forms as conditions read them: in one way, or not at all. Pure.

Servers disagree about what a query says, and a condition is worth nothing where the server reads another value than the
one that was judged. So of a parameter with a condition:

1. It stands once. Some servers take the first of two, some the last, some both.
2. No other parameter looks like it: in other case or width, encoded twice, with ``[]`` or more behind it, cut at a NUL,
   with a space before it, or with a dot or space where PHP puts an underscore.
3. ``;`` separates for some servers and not for others, ``+`` is a space for some: the condition holds in each reading.
4. Names and values are UTF-8 and well-formed percent-encoding (RFC 3986, section 2.1).
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple
from urllib.parse import unquote

from keyhole.core.codepoints import is_invisible
from keyhole.core.errors import InvalidRequest

MOST = 1000  # parameters
_LONGEST = 512  # characters of a name as it is sent
_LONGEST_VALUE = 128 * 1024  # of a value with a condition
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNDERSCORED = re.compile(r"[ .+\[]")
_LAYERS = 3  # of percent-encoding that are looked through


class Parameter(NamedTuple):
    """One parameter: its name decoded once, and its value as it was sent."""

    name: str
    value: str

    @property
    def values(self) -> tuple[str, ...]:
        """The readings of its value. Raises ``InvalidRequest`` for one that is not UTF-8, or longer than any is."""
        if len(self.value) > _LONGEST_VALUE:
            raise InvalidRequest(f"the parameter {self.name!r} is too long", f"at most {_LONGEST_VALUE} characters")
        plain = _decode(self.value)
        return (plain,) if "+" not in self.value else (_decode(self.value.replace("+", " ")), plain)


class Reading:
    """One way to read a query or a form: its parameters in order. What they look like is worked out once."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        self._looks: dict[bool, dict[str, list[Parameter]]] = {}

    def only(self, name: str) -> Parameter | None:
        """The parameter of this name; ``None`` where it is not there.

        Raises:
            InvalidRequest: it stands twice, or another one could be taken for it.
        """
        nested = "[" in name
        looks = self._looks.get(nested)
        if looks is None:
            looks = self._looks[nested] = {}
            for each in self.parameters:
                looks.setdefault(_looks(each.name, nested=nested), []).append(each)
        look = _looks(name, nested=nested)
        found = looks.get(look, [])
        if nested:  # PHP passes over what stands behind a bracket, and what stands in further ones takes its place
            found = [each for key, those in looks.items() if key.startswith(look) for each in those]
        if not found:
            return None
        if len(found) > 1 or found[0].name != name:
            raise InvalidRequest(f"the parameter {name!r} stands twice, or in another spelling", f"send {name!r} once")
        return found[0]


def read_parameters(text: str) -> list[Reading]:
    """The readings of a query string or a form.

    Raises:
        InvalidRequest: it is not well-formed, or has more than ``MOST`` parameters.
    """
    if text.count("&") + text.count(";") >= MOST:
        raise InvalidRequest(f"there are more than {MOST} parameters", "send fewer")
    if _BROKEN.search(text):
        raise InvalidRequest("a '%' is not followed by two hexadecimal digits", "percent-encode it as %25")
    readings = [Reading(_parameters(text.split("&")))]
    if ";" in text:
        readings.append(Reading(_parameters(text.replace(";", "&").split("&"))))
    return readings


def fold(name: str, *, nested: bool = False) -> str:
    """What a name may be taken for: all names with the same result look alike to some server.

    Args:
        name: decoded once.
        nested: keep what stands in brackets, for a name that has them.

    Raises:
        InvalidRequest: it is longer than any name is, so that normalising it takes long (see ``is_stream_safe``).
    """
    if len(name) > _LONGEST:
        raise InvalidRequest("a name is too long", f"at most {_LONGEST} characters")
    for _ in range(_LAYERS):
        if "%" not in name:
            break
        name = unquote(name)
    name = unicodedata.normalize("NFKC", name).casefold().partition("\0")[0].strip()
    if not name.isascii():
        name = "".join(char for char in name if not is_invisible(char))
    return name if nested else _UNDERSCORED.sub("_", name.partition("[")[0] or name)


def _looks(name: str, *, nested: bool) -> str:
    """``fold`` of a name as it stands in a query or form, where ``+`` may be a space."""
    return fold(name.replace("+", " "), nested=nested)


def _parameters(parts: list[str]) -> list[Parameter]:
    found = []
    for part in parts:
        name, _, value = part.partition("=")
        if len(name) > _LONGEST:
            raise InvalidRequest("the name of a parameter is too long", f"at most {_LONGEST} characters")
        if part:
            found.append(Parameter(_decode(name), value))
    return found


def _decode(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("a parameter is not UTF-8", "percent-encode it as UTF-8") from None
