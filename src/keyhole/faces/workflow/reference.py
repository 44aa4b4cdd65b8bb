"""References to what is known within a run: ``${STEP/POINTER}``, and texts and values that have some in them.

    ${customer/body/name}     a member of what the step `customer` gave, by a JSON pointer (RFC 6901)
    ${input/amount}           an input
    ${run/id}                 the run

There are no functions, no operators and no code. A text that is one reference and nothing else stands for the value,
with its type; within a longer text it stands for a text, number or boolean as it is written in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from keyhole.core.errors import InvalidRequest

NAME = r"[a-z][a-z0-9_-]{0,63}"
INPUT, RUN = "input", "run"
RUN_FACTS = frozenset({"id", "workflow"})
RESERVED = frozenset({INPUT, RUN, "env", "secret", "secrets", "step", "steps", "vault"})
_MARK = re.compile(r"\$\{([^{}]*)\}")
_INSIDE = re.compile(rf"({NAME})((?:/[^/{{}}$]{{0,200}}){{1,16}})")
_LONGEST = 1024 * 1024  # characters of a text with everything put in
MISSING: Any = object()


class Unresolved(InvalidRequest):
    """A reference leads to nothing, or to what cannot stand there."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference.

    Attributes:
        text: as it is written, without the braces.
        head: a step, ``input`` or ``run``.
        path: decoded segments of the pointer.
    """

    text: str
    head: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """The reference that a text is, without the braces; ``None`` for none."""
        match = _INSIDE.fullmatch(text)
        if match is None:
            return None
        path = tuple(part.replace("~1", "/").replace("~0", "~") for part in match[2][1:].split("/"))
        return cls(text, match[1], path)

    def find(self, known: Mapping[str, Any]) -> Any:
        """What it leads to; ``MISSING`` for nothing."""
        return descend(known.get(self.head, MISSING), self.path)


def descend(value: Any, path: Iterable[str]) -> Any:
    """The member of a value that a path leads to; ``MISSING`` for none."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and part.isascii() and len(part) < 10:
            value = next(iter(value[int(part) : int(part) + 1]), MISSING)
        else:
            return MISSING
    return value


def marks(text: str) -> Iterator[str]:
    """What stands in ``${…}``, whether it is a reference or not."""
    return (match[1] for match in _MARK.finditer(text))


def references(value: Any) -> Iterator[Reference]:
    """All references in a value."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, str):
            yield from (found for mark in marks(each) if (found := Reference.parse(mark)) is not None)
        elif isinstance(each, dict):
            stack += each.values()
        elif isinstance(each, list):
            stack += each


def fill(value: Any, known: Mapping[str, Any]) -> Any:
    """The value with everything put in. Raises ``Unresolved``."""
    if isinstance(value, str):
        return fill_text(value, known)
    if isinstance(value, dict):
        return {name: fill(each, known) for name, each in value.items()}
    return [fill(each, known) for each in value] if isinstance(value, list) else value


def fill_text(text: str, known: Mapping[str, Any]) -> Any:
    """As ``fill``, of a text."""
    whole = _MARK.fullmatch(text)
    if whole is not None:
        return _resolve(whole[1], known)
    return _put_in(text, known, lambda found: found)


def fill_address(text: str, known: Mapping[str, Any]) -> str:
    """A URL or a part of it with everything put in, percent-encoded, so that nothing in it becomes structure.

    Raises:
        Unresolved: as ``fill``; or a result would make a segment of dots, which servers take for another path.
    """
    filled = _put_in(text, known, lambda found: quote(found, safe=""))
    template = _MARK.sub("\0", text).partition("?")[0].split("/")
    for before, after in zip(template, filled.partition("?")[0].split("/"), strict=True):
        if "\0" in before and after in {"", ".", ".."}:
            raise Unresolved("what is put in would change the path of the URL", "see what the step before gave")
    return filled


def _put_in(text: str, known: Mapping[str, Any], spelled: Callable[[str], str]) -> str:
    filled = _MARK.sub(lambda match: spelled(_as_text(match[1], _resolve(match[1], known))), text)
    if len(filled) > _LONGEST:
        raise Unresolved("a text becomes too long", f"it may have {_LONGEST} characters")
    return filled


def _resolve(text: str, known: Mapping[str, Any]) -> Any:
    reference = Reference.parse(text)
    found = MISSING if reference is None else reference.find(known)
    if found is MISSING:
        raise Unresolved(f"${{{text}}} leads to nothing", "keyhole workflow show RUN shows what each step gave")
    return found


def _as_text(text: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise Unresolved(f"${{{text}}} is no text or number that could stand within a text", "refer to one of its members")
