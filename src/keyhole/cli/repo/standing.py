"""How a vault stands to its remotes, for ``repo status``: by names and times."""

from __future__ import annotations

from typing import Any

from keyhole.cli.repo.peers import Peer, Relation, peers
from keyhole.cli.repo.place import Place
from keyhole.cli.repo.sync import differences
from keyhole.core.errors import KeyholeError
from keyhole.repo.opened import Opened
from keyhole.repo.seen import Met


def standings(place: Place, opened: Opened, *, ask: bool) -> list[dict[str, Any]]:
    """Each remote with when it was last in step, and what either side has that the other lacks.

    Args:
        place: the vault.
        opened: the same, verified.
        ask: the remotes; else what was known after the last time is told.
    """
    found = []
    for other in peers(place).values():
        met = opened.seen.remotes.get(other.name, Met())
        about: dict[str, Any] = {"name": other.name, "url": other.url, "synced": met.at or None}
        about |= {"state": "not asked", "unpushed": _newer(opened, met), "behind": None, "both": None}
        if ask:
            about |= _asked(place, other)
        found.append(about)
    return found


def _newer(opened: Opened, met: Met) -> list[str]:
    """What is here and was not there when that was last known."""
    _, secrets = opened.state()
    return sorted(name for name, state in secrets.items() if state[0] > met.secrets.get(name, (0, ""))[0])


def _asked(place: Place, other: Peer) -> dict[str, Any]:
    try:
        with place.tree.lock():
            look = other.look()
            found = differences(look)
    except KeyholeError as error:
        return {"state": "not asked", "error": error.reason}
    except OSError as error:  # a folder that can only be read
        return {"state": "not asked", "error": f"the vault cannot be locked: {error.strerror}"}
    words = {Relation.SAME: "same", Relation.AHEAD: "ahead", Relation.BEHIND: "behind", Relation.EMPTY: "ahead"}
    state = words.get(look.relation, "parted")
    return {"state": state, "unpushed": found["local"], "behind": found["remote"], "both": found["both"]}


def lines_of(about: dict[str, Any]) -> list[str]:
    """The same for people."""
    when = f"last in step {about['synced'][:16].replace('T', ' ')} UTC" if about["synced"] else "never in step"
    lines = [f"remote:   {about['name']} {about['url']}, {when}: {about['state']}"]
    if "error" in about:
        lines[0] += f" ({about['error']})"
    return lines + [f"  {word}: {' '.join(about[word])}" for word in ("unpushed", "behind", "both") if about[word]]
