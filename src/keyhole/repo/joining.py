"""Which list of members goes on from another that is not in its chain: two people changed the members at once.

Each of both lists is signed, and each may have been seen. The document that ends this goes on from one of them and
names the last document of the other (``over``), whose documents stay beside the chain, in ``.x/aside/DIGEST.json``.
Who has seen one of these goes on from it, step by step: from a document to the one that follows it, and from the last
to the one that names it, if an owner of the list that was there signed that. So who is no owner any more in the list
that somebody has seen cannot put another one in its place.
"""

from __future__ import annotations

from collections import defaultdict

from keyhole.core.errors import IntegrityError
from keyhole.repo import members, signed
from keyhole.repo.members import Members
from keyhole.repo.signed import Signed
from keyhole.repo.tree import Files

SIGNED_MEMBERS, ASIDE = ".x/members", ".x/aside"
_MOST = 4096  # documents beside the chain


def chain(tree: Files) -> list[str]:
    """The paths of the documents of the members, the oldest first."""
    return [f"{SIGNED_MEMBERS}/{name}" for name in tree.names(SIGNED_MEMBERS) if name.endswith(".json")]


def aside(tree: Files) -> list[str]:
    """The paths of the documents beside the chain. Raises ``IntegrityError`` for too many."""
    found = [f"{ASIDE}/{name}" for name in tree.names(ASIDE) if name.endswith(".json")]
    if len(found) > _MOST:
        raise IntegrityError(
            f"{ASIDE} has more than {_MOST} files", "somebody put them there: restore it from its history"
        )
    return found


def leads(tree: Files, seen: str) -> bool:
    """Whether the last list of a chain, which is verified, goes on from a document that was seen, in it or beside it.

    Args:
        tree: the files.
        seen: digest of that document.

    Raises:
        IntegrityError: something beside the chain is no list of members, or is too much.
    """
    documents: dict[str, tuple[Signed, Members]] = {}
    after: defaultdict[str, list[str]] = defaultdict(list)
    goal = ""
    for path in (*aside(tree), *chain(tree)):
        document = signed.read(members.KIND, tree.require(path), path)
        found = members.read(document)
        goal = document.digest
        documents[goal] = (document, found)
        for before in (found.previous, *found.over):
            after[before].append(goal)
    reached, todo = {seen}, [seen] if seen in documents else []
    while todo:
        here = todo.pop()
        for later in after[here]:
            if later not in reached and _goes_on(documents[here][1], here, *documents[later]):
                reached.add(later)
                todo.append(later)
    return seen in documents and goal in reached


def _goes_on(before: Members, digest: str, document: Signed, after: Members) -> bool:
    if digest in after.over:
        same = (before.vault, before.opaque) == (after.vault, after.opaque)
        return same and any(document.is_by(name, owner.sign) for owner in before.owners for name in document.signatures)
    try:
        members.require_follows(before, digest, document)
    except IntegrityError:
        return False
    return True


def may_join(winner: Members, loser: Members, public: bytes) -> bool:
    """Whether who signs with this public key owns the vault by both lists: only then others take one for the other."""
    return all(public in [owner.sign for owner in side.owners] for side in (winner, loser))


def kept_aside(winner: Files, loser: Files) -> dict[str, bytes]:
    """Path to the bytes of what stays beside the chain of ``winner``, for those who know ``loser``."""
    files = {path: side.require(path) for side in (winner, loser) for path in aside(side)}
    for path in chain(loser):
        data = loser.require(path)
        if winner.read(path) != data:
            files[f"{ASIDE}/{signed.read(members.KIND, data, path).digest}.json"] = data
    return files
