"""Reads members of a document one by one, and notes what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from keyhole.core.checks.values import ValueTest
from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import parse_duration
from keyhole.faces.workflow.problem import Problem
from keyhole.faces.workflow.reading import Node
from keyhole.faces.workflow.reference import NAME

_NAME = re.compile(NAME)
_LONGEST_TEXT = 500
_SHOWN = 40


class Fields:
    """Collects problems while members are read. A member that is wrong is read as one that is not there.

    Attributes:
        problems: so far.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, node: Node, where: str, reason: str, hint: str, rule: str = "structure") -> None:
        """Note a problem at a value."""
        self.problems.append(Problem(node.line, node.column, where, rule, reason, hint))

    def object(self, node: Node, where: str, known: frozenset[str], *required: str) -> dict[str, Node]:
        """The members of an object."""
        if not isinstance(node.value, dict):
            self.wrong(node, where, "it must be an object", f"with {', '.join(sorted(known))}")
            return {}
        for name in node.value.keys() - known:
            line, column = node.keys[name]
            shown = f"{name!r} is no member of it" if _NAME.fullmatch(name) else "it has a member that is not known"
            hint = f"known: {', '.join(sorted(known))}"
            self.problems.append(Problem(line, column, where, "structure", shown[: _SHOWN + 30], hint))
        for name in required:
            if name not in node.value:
                self.wrong(node, where, f"it has no {name}", f"add {name}")
        return {name: each for name, each in node.value.items() if name in known}

    def named(self, node: Node | None, where: str, what: str, most: int) -> Iterator[tuple[str, Node]]:
        """The members of an object whose keys are names of the document's own."""
        if node is None:
            return
        if not isinstance(node.value, dict) or len(node.value) > most:
            self.wrong(node, where, f"it must be an object of at most {most} {what}", f"{what}: {{NAME: …}}")
            return
        for name, each in node.value.items():
            if _NAME.fullmatch(name):
                yield name, each
            else:
                line, column = node.keys[name]
                hint = "lower-case letters, digits, - and _, at most 64, a letter first"
                self.problems.append(Problem(line, column, where, "structure", "this is no name", hint))

    def list(self, node: Node, where: str, least: int, most: int) -> list[Node]:
        """The elements of a list."""
        if isinstance(node.value, list) and least <= len(node.value) <= most:
            return node.value
        self.wrong(node, where, f"it must be a list of {least} to {most}", "write it as a list")
        return []

    def name(self, node: Node | None, where: str) -> str:
        """A name; empty for none."""
        if node is None:
            return ""
        if isinstance(node.value, str) and _NAME.fullmatch(node.value):
            return node.value
        hint = "lower-case letters, digits, - and _, at most 64, a letter first"
        self.wrong(node, where, "this is no name", hint)
        return ""

    def text(self, node: Node | None, where: str, most: int = _LONGEST_TEXT) -> str:
        """A text; empty for none."""
        if node is None:
            return ""
        if isinstance(node.value, str) and 0 < len(node.value) <= most:
            return node.value
        self.wrong(node, where, f"it must be a text of 1 to {most} characters", "put it in quotes")
        return ""

    def flag(self, node: Node | None, where: str, usual: bool) -> bool:  # noqa: FBT001  # what it is where nothing is said
        """``true`` or ``false``."""
        if node is None:
            return usual
        if isinstance(node.value, bool):
            return node.value
        self.wrong(node, where, "it must be true or false", "without quotes")
        return usual

    def count(self, node: Node | None, where: str, least: int, most: int, usual: int) -> int:
        """A whole number."""
        if node is None:
            return usual
        if isinstance(node.value, int) and not isinstance(node.value, bool) and least <= node.value <= most:
            return node.value
        self.wrong(node, where, f"it must be a whole number from {least} to {most}", "without quotes")
        return usual

    def choice(self, node: Node | None, where: str, choices: tuple[str, ...], usual: str) -> str:
        """One of some words."""
        if node is None:
            return usual
        if isinstance(node.value, str) and node.value in choices:
            return node.value
        self.wrong(node, where, f"it must be one of {', '.join(choices)}", f"{usual} where nothing is said")
        return usual

    def seconds(self, node: Node | None, where: str, most: float, usual: float) -> float:
        """A time, such as ``30s`` or a number of seconds."""
        if node is None:
            return usual
        value, found = node.value, -1.0
        if isinstance(value, int | float) and not isinstance(value, bool):
            found = float(value)
        elif isinstance(value, str):
            try:
                found = float(parse_duration(value, name="time"))
            except InvalidRequest:
                found = -1.0
        if math.isfinite(found) and 0 <= found <= most:
            return found
        self.wrong(node, where, f"it must be a time of at most {most:.0f} seconds", "30s, 5m, or a number of seconds")
        return usual

    def test(self, node: Node, where: str) -> ValueTest | None:
        """A condition on one value; see ``core.checks.values``."""
        plain: Any = node.plain()
        try:
            return ValueTest.from_data(plain, "value")
        except InvalidRequest as error:
            self.wrong(node, where, error.reason.replace(" on 'value'", ""), error.hint)
            return None
