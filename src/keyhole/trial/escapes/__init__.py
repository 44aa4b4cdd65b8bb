"""The ways out of a sandbox, tried from where this process is: ``keyhole run -- keyhole doctor --agent``.

Each try is one that a hostile command would make, and harms nothing: what opens is closed again, nothing is written,
nothing is sent but one question for a name that does not exist, and no value is shown. ``open`` says what a command
could do from here; it is the same list inside and outside, so that one can see what the sandbox is worth here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["held", "open", "not tried"]


@dataclass(frozen=True, slots=True)
class Escape:
    """One way out, and what came of trying it.

    Attributes:
        name: of the way.
        state: ``held``, ``open``, or ``not tried`` where this system has nothing to try.
        detail: what that means.
    """

    name: str
    state: State
    detail: str


Try = Callable[[], Iterator[Escape]]


def tries() -> Iterator[Escape]:
    """Try them all, one after the other."""
    from keyhole.trial.escapes import files, network, processes  # noqa: PLC0415  # they need this module

    for attempt in (*network.TRIES, *processes.TRIES, *files.TRIES):
        yield from attempt()


def text_of(path: str) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
