"""What was changed lately of a mount, as its epoch notes it: so that of ten thousand entries one is read again. Pure.

A note is JSON: a list of ``[revision, names]``, the oldest first, one for each change of the epoch. It is a help and no
more. Whoever finds that a revision is missing in it reads everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

_MOST = 64  # names in a note; also changes, as each has one at least


def noted(before: bytes, revision: int, names: Sequence[str]) -> bytes:
    """A note with one more change; empty where that is of too much.

    Args:
        before: the note so far; empty for none.
        revision: of the epoch with the change.
        names: what the change writes and removes.
    """
    changes = [*_read(before), (revision, list(names))]
    while changes and sum(max(1, len(each)) for _, each in changes) > _MOST:
        del changes[0]
    return json.dumps(changes).encode() if changes else b""


def since(note: bytes, seen: int, revision: int) -> list[str] | None:
    """What was changed after one revision of an epoch and up to another; ``None`` where the note does not say."""
    changes = {number: names for number, names in _read(note) if seen < number <= revision}
    if seen > revision or len(changes) != revision - seen:
        return None
    return list(dict.fromkeys(name for names in changes.values() for name in names))


def _read(note: bytes) -> list[tuple[int, list[str]]]:
    return [(number, names) for number, names in json.loads(note)] if note else []
