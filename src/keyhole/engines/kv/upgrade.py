"""From secrets without versions to those with: each becomes version 1 of a secret of its name.

The mark is written first. Everything of version 1 that writes stands on there being no mark, so nobody can add to what
is brought over, whatever he was in the middle of. Then each secret moves in one commit from ``p/NAME`` to ``k/NAME``: a
process that dies leaves some moved and some not, and whoever goes on, also several at once, moves the rest.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from keyhole.core.errors import Conflict
from keyhole.engines import Context
from keyhole.engines.kv.document import Document
from keyhole.engines.kv.v1 import MARK

_AT_ONCE = 50  # secrets of one commit


async def from_v1(context: Context) -> None:
    """Bring over what a mount of version 1 holds; it returns when nothing is left of that."""
    storage = context.storage
    mark = await storage.get_one(MARK)
    if mark.data is None:
        with contextlib.suppress(Conflict):  # another node did it
            await storage.change([(MARK, b"", mark.revision)])
    while names := await storage.list("p", recursive=True):
        for start in range(0, len(names), _AT_ONCE):
            await _move(context, names[start : start + _AT_ONCE])


async def _move(context: Context, names: Sequence[str]) -> None:
    try:
        await _commit(context, names)
    except Conflict:  # another node is at it: one by one, so that both get on
        for name in names:
            with contextlib.suppress(Conflict):
                await _commit(context, [name])


async def _commit(context: Context, names: Sequence[str]) -> None:
    old = await context.storage.get(*(f"p/{name}" for name in names))
    new = await context.storage.get(*(f"k/{name}" for name in names))
    writes, deletes = [], []
    for name, before, after in zip(names, old, new, strict=True):
        if before.data is None:
            continue
        document = Document(context.now, context.now, current=1, data=json.loads(before.data))
        document.versions["1"] = {"created": context.now, "deleted": 0, "destroyed": False}
        writes.append((f"k/{name}", document.encode(), after.revision))
        deletes.append((f"p/{name}", before.revision))
    if writes:
        await context.storage.change(writes, deletes)
