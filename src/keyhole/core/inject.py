"""How a secret is attached: the kinds of injection, their options and the fields of a secret that each needs. Pure.

``KINDS`` is the one table of them. From it come the reader of the ``inject`` object of a service, the choice of the
fields that a loan opens, the words of ``why`` and the options of the command line. What a kind does to a message lies
in ``injections``, one file a kind or family.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest

PLACES = ("header", "query", "path", "body")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
# Headers that frame or route a message: a secret in one of them would change what is judged.
_FRAMING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect", "via"}
)


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
        return cls(str(name), tuple((option.name, option.read(data.get(option.name))) for option in kind.options))

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
            **{
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.options
                if value != defaults[name]
            },
        }

    @property
    def text(self) -> str:
        """What the client sends in place of the secret, for kinds that replace it; else empty."""
        return str(self.get("text", ""))

    def describe(self) -> str:
        """What it does, in words and without a value."""
        return KINDS[self.kind].describe(self)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a kind.

    Attributes:
        name: in the ``inject`` object.
        check: makes the normal form, or raises ``InvalidRequest``; gets ``None`` for an option that was not given and
            has no default.
        default: taken when it was not given.
        help: for the command line and the documentation.
    """

    name: str
    check: Callable[[Any], Any]
    default: Any = None
    help: str = ""

    def read(self, value: Any) -> Any:
        """The normal form of a given value, or the default."""
        return self.default if value is None and self.default is not None else self.check(value)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a kind of injection.

    Attributes:
        help: what it does, in a line.
        describe: the same for one service, without a value.
        options: what can be said of it.
        fields: sets of named fields that it works with where the reference to the secret names no field, the first
            that is there is taken; empty for a kind that takes one value.
        sole: it can do with the one value that the reference names as well; tried first.
        keeps: something made with the secret outlives a call, such as a token with its end.
    """

    help: str
    describe: Callable[[Inject], str]
    options: tuple[Option, ...] = ()
    fields: tuple[tuple[str, ...], ...] = ()
    sole: bool = True
    keeps: bool = False


def header_name(value: Any) -> str:
    """A header that can carry a secret, in lower case."""
    text = str(value or "").lower()
    if not _HEADER.fullmatch(text) or text in _FRAMING or text.startswith("proxy-"):
        raise InvalidRequest("the header name is not one that can carry a secret", "for example X-Api-Key")
    return text


def template(value: Any) -> str:
    """A text with one ``{}`` where the secret is put."""
    text = str(value)
    if text.count("{}") != 1 or not text.isprintable() or not text.isascii():
        raise InvalidRequest("a header template has exactly one {} and only ASCII", "for example 'Token {}'")
    return text


def placeholder_text(value: Any) -> str:
    """What a client sends in place of a secret."""
    text = str(value or "")
    if not 8 <= len(text) <= 256 or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest("a placeholder is 8 to 256 visible ASCII characters", "for example sk-placeholder-1")
    return text


def places(value: Any) -> tuple[str, ...]:
    """Where a placeholder is replaced."""
    found = tuple(value.split(",")) if isinstance(value, str) else value or ("header",)
    if not isinstance(found, list | tuple) or not all(isinstance(place, str) for place in found):
        raise InvalidRequest(f"a placeholder is replaced in {', '.join(PLACES)}")
    for place in found:
        if place not in PLACES:
            raise InvalidRequest(f"a placeholder is replaced in {', '.join(PLACES)}")
        if place != "header":
            raise InvalidRequest(f"placeholders in the {place} are not built yet", "use header")
    return tuple(dict.fromkeys(found))


def _user(value: Any) -> str:
    text = str(value or "")
    if ":" in text or not text.isprintable():
        raise InvalidRequest("the user name of basic cannot have a colon or a control character")
    return text


KINDS: dict[str, Kind] = {
    "bearer": Kind("as Authorization: Bearer (RFC 6750)", lambda _: "authorization: Bearer ***"),
    "basic": Kind(
        "as Authorization: Basic (RFC 7617)",
        lambda how: f"authorization: Basic base64({how['user'] + ':' if how['user'] else ''}***)",
        (Option("user", _user, "", "the user name, where the value is the password alone"),),
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
    "placeholder": Kind(
        "in place of a text that the client sends",
        lambda how: f"{how['text']} -> *** in {', '.join(how['in'])}",
        (
            Option("text", placeholder_text, help="what the client sends"),
            Option("in", places, ("header",), "where it is replaced"),
        ),
    ),
}
