"""What a vault was before: the seam to whatever keeps its history, and what the signed documents in it say.

Git keeps one, and so does a remote of objects with its snapshots. Nothing of it is believed: a version counts when the
one that is verified today leads to it by digests, or when somebody signed it who may do so today.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keyhole.core.errors import IntegrityError
from keyhole.repo import members, signed
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import Members
from keyhole.repo.opened import Opened
from keyhole.repo.tree import Files


@dataclass(frozen=True, slots=True)
class Trace:
    """Some content of a file, and where it came in.

    Attributes:
        path: below the vault.
        data: its bytes; ``None`` for one that is too long, or no plain file.
        place: id of the commit or snapshot.
        time: that this says; nobody vouches for it; ``None`` where it says none.
        message: of it, one line; nobody vouches for that either.
    """

    path: str
    data: bytes | None
    place: str
    time: datetime | None = None
    message: str = ""


class Past(Protocol):
    """The states that a vault went through."""

    def traces(self, folders: Iterable[str]) -> list[Trace]:
        """Each content that each file below these folders had, once, where it came in first; the oldest first."""

    def at(self, place: str) -> Files:
        """The files of the vault at a commit or snapshot."""

    def resolve(self, text: str) -> str:
        """The id of what a person named. Raises ``NotFound``."""


def everybody(opened: Opened) -> list[Members]:
    """The lists of members from the first to that of today, as they were verified. Empty where nothing is signed."""
    if opened.members is None:
        return []
    found: list[Members] = []
    digest = ""
    for number in range(1, opened.members.version + 1):
        path = f"{SIGNED_MEMBERS}/{number:06}.json"
        document = signed.read(members.KIND, opened.tree.require(path), path)
        found.append(members.read(document))
        if found[-1].previous != digest:
            raise IntegrityError(f"{path} has changed just now", "try again")
        digest = document.digest
    if digest != opened.digest:
        raise IntegrityError("the members have changed just now", "try again")
    return found
