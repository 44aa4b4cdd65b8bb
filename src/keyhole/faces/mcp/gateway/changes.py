"""What changes at servers, for the clients that want to hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

TOOLS, PROMPTS, RESOURCES, UPDATED = "tools", "prompts", "resources", "updated"
_TOGETHER = 0.1  # seconds in which the same is said once
_MOST = 1000  # things that are about to be said


@dataclass(frozen=True, slots=True)
class Change:
    """That a list of a server, or one of its resources, is another one now.

    Attributes:
        kind: ``TOOLS``, ``PROMPTS``, ``RESOURCES`` or ``UPDATED``.
        server: its name.
        uri: of the resource, as the server names it.
    """

    kind: str
    server: str
    uri: str = ""


Hears = Callable[[Change], None]


class Changes:
    """Says changes to all who listen, the same at most ten times a second."""

    def __init__(self) -> None:
        self._hear: dict[object, Hears] = {}
        self._due: set[Change] = set()

    def of(self, server: str) -> Callable[[str, str], None]:
        """What is told the kind of a change at a server, and the URI where there is one."""
        return lambda kind, uri: self._say(Change(kind, server, uri))

    def subscribe(self, hears: Hears) -> Callable[[], None]:
        """Listen; returns what ends it."""
        key = object()
        self._hear[key] = hears

        def end() -> None:
            self._hear.pop(key, None)

        return end

    def _say(self, change: Change) -> None:
        if change not in self._due and len(self._due) < _MOST:
            self._due.add(change)
            asyncio.get_running_loop().call_later(_TOGETHER, self._said, change)

    def _said(self, change: Change) -> None:
        self._due.discard(change)
        for hears in list(self._hear.values()):
            hears(change)
