"""A set of known values that grows while logs are written."""

from __future__ import annotations

from collections.abc import Iterable

from keyhole.scrub import Scrubber

Span = tuple[int, int]


class Growing:
    """Values that come one by one, and where they stand in a text.

    Compiling costs half a millisecond a value, so each new one is compiled with those groups alone that are no larger
    than it has become: a value is compiled again as often as the logarithm of their number.
    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._groups: list[tuple[tuple[bytes, ...], Scrubber]] = []

    def __repr__(self) -> str:
        return "Growing(***)"

    def __len__(self) -> int:
        return len(self._known)

    def add(self, values: Iterable[bytes]) -> None:
        """Take more values; those that are there already cost nothing."""
        fresh = tuple(dict.fromkeys(value for value in values if value not in self._known))
        if not fresh:
            return
        self._known.update(fresh)
        groups = list(self._groups)
        while groups and len(groups[-1][0]) <= len(fresh):
            fresh = (*groups.pop()[0], *fresh)
        self._groups = [*groups, (fresh, Scrubber.compile(fresh))]  # at once: other threads read it

    def spans(self, text: bytes) -> list[Span]:
        """Where the values stand, in any of their forms; half-open, in no order."""
        found: list[Span] = []
        for _, scrubber in self._groups:
            found += scrubber.scan(text, b"", final=True)[0]
        return found
