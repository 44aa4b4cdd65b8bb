"""What was read from one source, whatever it is, and why others may have seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from keyhole.cli.import_sources import Source
from keyhole.importers import Found, Skipped

PLAIN = "lay in a file without encryption"
READABLE = "lay in a file that others on this machine can read"
COMMITTED = "stands in the history of a git repository"


@dataclass(slots=True)
class Batch:
    """Everything of one source.

    Attributes:
        label: for a person.
        found: secrets, with names as they will be.
        skipped: what is not taken.
        notes: what a person should know besides.
        seen: why others may have seen all of it.
        file: the file, where it is one.
        committed: names of those that stand in the history of its repository.
    """

    label: str
    found: list[Found]
    skipped: list[Skipped] = field(default_factory=list)
    notes: Sequence[str] = ()
    seen: str = ""
    file: Source | None = None
    committed: frozenset[str] = frozenset()

    def why_seen(self, found: Found) -> str:
        """Why somebody else may have seen a secret; empty where nothing says so."""
        reasons = [found.seen, self.seen]
        if self.file is not None and self.file.exposed:
            reasons.append(READABLE)
        if found.name in self.committed:
            reasons.append(COMMITTED)
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
