"""Tells the administrators that the end of a secret comes near, once for each threshold."""

from __future__ import annotations

import contextlib

from keyhole.core.errors import Conflict
from keyhole.core.notice import Notice
from keyhole.core.times import format_time
from keyhole.engines import Context, Ending
from keyhole.engines.kv import lifetime
from keyhole.engines.kv.document import decode

_AT_ONCE = 200  # secrets that are read together


async def tell_of_end(context: Context, path: str) -> str:
    """What an entry ``k/NAME`` is due for; may be called at any time, and by several nodes at once.

    Whoever tells first has told: a notice is known by its threshold, and given out once. Then the mark is stored, and
    the entry is due at its next threshold.

    Returns:
        The path of the metadata, when somebody was told.
    """
    name = path.removeprefix("k/")
    item = await context.storage.get_one(path)
    if item.data is None:
        return ""
    document, now = decode(item), context.now
    ends = lifetime.ends_of(document.expires, document.rotate_every, document.renewed)
    said = 0
    if document.current and not document.gone(document.current, now):
        marks = []
        for end, days in lifetime.crossed(ends, await context.notices.days(), now):
            marks.append(end.mark(days))
            if end.mark(days) not in document.told:
                said += await context.notices.tell(_notice(f"{context.mount}{name}", end, days, document.owner))
        # Thresholds can be changed, and what was told stays told.
        still = [mark for mark in document.told if mark.rpartition(" ")[0] in {f"{e.what} {e.at:.0f}" for e in ends}]
        document.told = list(dict.fromkeys([*still, *marks]))
    await document.save(context, name)
    return f"metadata/{name}" if said else ""


async def all_ends(context: Context) -> list[Ending]:
    """As ``Engine.ends``. What cannot be told now stays due, and is told later."""
    days, found = await context.notices.days(), list[Ending]()
    names = await context.storage.list("k", recursive=True)
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        for name, item in zip(part, await context.storage.get(*(f"k/{each}" for each in part)), strict=True):
            document = decode(item) if item.data is not None else None
            if document is None or not (document.expires or document.rotate_every) or not document.current:
                continue
            with contextlib.suppress(Conflict):
                await tell_of_end(context, f"k/{name}")
            if not document.gone(document.current, context.now):
                ends = lifetime.ends_of(document.expires, document.rotate_every, document.renewed)
                near = lifetime.crossed(ends, days, context.now)
                found += [Ending(f"{context.mount}{name}", end.what, end.at) for end, _ in near]
    return found


def _notice(name: str, end: lifetime.End, days: int, owner: str) -> Notice:
    when = f"at {format_time(end.at)}"
    if end.what == "expires":
        text = f"the secret {name} expires {when}" if days else f"the secret {name} has expired {when}"
    else:
        text = f"a new value of the secret {name} is due {when}"
        text = text if days else f"a new value of the secret {name} was due {when}"
    if owner:
        text += f"; ask {owner}"
    kind = "expiry" if end.what == "expires" else "rotation-due"
    return Notice(kind, name, text, key=f"{name} {end.mark(days)}")
