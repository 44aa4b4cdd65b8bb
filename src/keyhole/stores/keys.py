"""What every member does alike with keys: judge a batch before it is applied, and walk sorted keys.

Byte order is code-point order here, because keys are ASCII.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.stores import Batch

KEY_LIMIT = 2048
"""Longest key in bytes."""

AFTER_ASCII = "\x80"
"""Sorts after every ASCII character: ``prefix + AFTER_ASCII`` is beyond every key that begins with ``prefix``."""

Seek = Callable[[str, bool], Iterable[str]]
"""``seek(start, inclusive)`` iterates the live keys from ``start`` on, ascending, up to the end of the prefix."""


def _check_key(key: str, expected: int) -> None:
    if not 0 < len(key) <= KEY_LIMIT or not key.isascii() or "\0" in key:
        raise InvalidRequest(f"a store key must be 1 to {KEY_LIMIT} ASCII characters without NUL")
    if expected < 0:
        raise InvalidRequest("an expected revision is 0 (the key never was) or the stored one")


def expectations(batch: Batch) -> list[tuple[str, int]]:
    """Every key that the batch names, with the revision that it expects there."""
    named = [(put.key, put.expected) for put in batch.puts]
    named += [(delete.key, delete.expected) for delete in batch.deletes]
    named += [(check.key, check.expected) for check in batch.checks]
    return named


def validate(batch: Batch) -> None:
    """Refuse a batch that no store could apply in exactly one way.

    Raises:
        InvalidRequest: a bad key, revision or due time, or a key that is changed twice.
    """
    for put in batch.puts:
        if put.due is not None and not math.isfinite(put.due):
            raise InvalidRequest("a due time must be a finite number of seconds since the epoch")
        if put.keep_due and (put.due is not None or put.expected < 1):
            raise InvalidRequest("an entry that stays due when it is has to be there, and gets no other time")
    for key, expected in expectations(batch):
        _check_key(key, expected)
    changed = len(batch.puts) + len(batch.deletes)
    if changed > 1:
        keys = {put.key for put in batch.puts}
        keys.update(delete.key for delete in batch.deletes)
        if len(keys) != changed:
            raise InvalidRequest("a batch changes each key at most once", "merge the changes or commit them in turn")


def merged(changes: Sequence[Batch]) -> Batch:
    """Changes that have nothing to do with each other, as one."""
    return Batch(
        puts=[put for change in changes for put in change.puts],
        deletes=[delete for change in changes for delete in change.deletes],
        checks=[*dict.fromkeys(check for change in changes for check in change.checks)],
    )


def changed_since(key: str, expected: int, stored: int) -> Conflict:
    """The refusal of a change that was made from an older (or newer) revision than the stored one."""
    return Conflict(f"{key} is at revision {stored}, not {expected}", "read it again and repeat the change")


def out_of_order(writer: int, sequence: int, head: int) -> Conflict:
    """The refusal of a journal row that would leave a gap or replace a row."""
    return Conflict(
        f"journal {writer} ends at {head}, so row {sequence} cannot be appended",
        "another process may hold this writer's slot; lease a slot again",
    )


def fold(seek: Seek, prefix: str, after: str, limit: int, delimiter: str) -> list[str]:
    """One page of a listing. A folded name costs one seek, however many keys are below it.

    Args:
        seek: walks the live keys that begin with ``prefix``.
        prefix: what every key begins with.
        after: only names greater than this; the last name of the page before.
        limit: most names to return.
        delimiter: fold at its first occurrence after the prefix; empty for none.
    """
    names: list[str] = []
    start, inclusive = (prefix, True) if after < prefix else (after, False)
    if delimiter and after.startswith(prefix) and (cut := after.find(delimiter, len(prefix))) >= 0:
        start = after[: cut + len(delimiter)] + AFTER_ASCII
    while len(names) < limit:
        folded = False
        for key in seek(start, inclusive):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                names.append(key[: cut + len(delimiter)])
                start, inclusive, folded = names[-1] + AFTER_ASCII, True, True
                break
            names.append(key)
            if len(names) >= limit:
                return names
        if not folded:
            break
    return names
