"""What is wrong with a document, and where. Never with a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        line: from 1.
        column: characters from 1.
        where: the way to it in the document, such as ``/steps/0/call/url``.
        rule: which one is broken; never changes.
        reason: what is wrong, without any value.
        hint: the next step.
    """

    line: int
    column: int
    where: str
    rule: str
    reason: str
    hint: str

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in ("line", "column", "where", "rule", "reason", "hint")}


class Unreadable(InvalidRequest):
    """The document is none.

    Args:
        problem: what is wrong with it.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"line {problem.line}, column {problem.column}: {problem.reason}", problem.hint)
        self.problem = problem
