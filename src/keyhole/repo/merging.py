"""Two states of a vault that went on from one: what only one side changed is taken, what both changed is chosen.

Nothing is lost by it: the side that was not chosen stays in the history. What comes out is sealed for exactly those who
are members then, and what was chosen or sealed again is a version after both, signed by who merges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest, PolicyDenied
from keyhole.crypto import age
from keyhole.repo import joining
from keyhole.repo.documents import write_manifest, write_meta
from keyhole.repo.hidden import NAMES, digest
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import RULERS, Member, Members, Role
from keyhole.repo.opened import (
    MANIFEST,
    OWNER,
    Opened,
    meta_path,
    recipients_of,
    sealed_path,
    signed_path,
)
from keyhole.repo.sealing import Actor, Files, manifest_of
from keyhole.repo.settling import Side, Verdict, Weighed, due, line, stands, weigh
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.tree import Change

MEMBERS = "members"


@dataclass(frozen=True, slots=True)
class Clash:
    """Something that both sides changed.

    Attributes:
        name: of the secret, or ``members``.
        why: in words, without a value.
    """

    name: str
    why: str


@dataclass(slots=True)
class Comparison:
    """How two sides differ, by names only.

    Attributes:
        ours: secrets that only this side changed since they parted.
        theirs: those that only the other side changed.
        sealed: those of which both have a version of their own with the same value.
        settled: those between whose values people have chosen differently, so that a rule has; which side counts.
        clashes: what both did.
        members: which side has the list of members that counts.
        weighed: what was found of each secret that both have and have not alike.
    """

    ours: list[str] = field(default_factory=list)
    theirs: list[str] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)
    settled: dict[str, Side] = field(default_factory=dict)
    clashes: list[Clash] = field(default_factory=list)
    members: Side = Side.OURS
    weighed: dict[str, Weighed] = field(default_factory=dict)


def compare(base: Opened | None, ours: Opened, theirs: Opened) -> Comparison:
    """How two sides differ.

    Args:
        base: where they parted; ``None`` when that is not known.
        ours: of this clone.
        theirs: from elsewhere, verified.

    Raises:
        IntegrityError: they are two vaults, or one of them is not signed.
    """
    left, right = ours.require_members(), theirs.require_members()
    if left.vault != right.vault:
        raise IntegrityError("the other side is another vault", "fetch from the remote of this one")
    found = Comparison()
    found.members, clash = _whose_members(ours, theirs)
    if clash is not None:
        found.clashes.append(clash)
    there = (ours if found.members is Side.OURS else theirs).require_members().members
    for name in sorted({*ours.secrets, *theirs.secrets}):
        marks = [_mark(side, name) for side in (base, ours, theirs)]
        if marks[1] == marks[2]:
            continue
        if not (marks[1] and marks[2]):
            _one_side(found, ours, theirs, name, marks)
            continue
        weighed = found.weighed[name] = weigh(ours.secrets[name], theirs.secrets[name], marks[0], there)
        match weighed.verdict:
            case Verdict.LATER:
                (found.ours if weighed.side is Side.OURS else found.theirs).append(name)
            case Verdict.SAME:
                found.sealed.append(name)
            case Verdict.SETTLED:
                found.settled[name] = weighed.side
            case Verdict.CLASH:
                found.clashes.append(Clash(name, _both(ours, theirs, name)))
    return found


def _one_side(found: Comparison, ours: Opened, theirs: Opened, name: str, marks: list[str]) -> None:
    """Of a secret that only one side has."""
    if not marks[0]:
        (found.ours if marks[1] else found.theirs).append(name)
    else:
        found.clashes.append(Clash(name, _both(ours, theirs, name)))


def _whose_members(ours: Opened, theirs: Opened) -> tuple[Side, Clash | None]:
    left, right = ours.require_members(), theirs.require_members()
    if ours.digest == theirs.digest or joining.leads(ours.tree, theirs.digest):
        return Side.OURS, None
    if joining.leads(theirs.tree, ours.digest):
        return Side.THEIRS, None
    longer = Side.THEIRS if right.version > left.version else Side.OURS
    return longer, Clash(MEMBERS, "both sides changed the members; the changes of one have to be made again")


def _mark(side: Opened | None, name: str) -> str:
    found = side.secrets.get(name) if side is not None else None
    return found[0].digest if found is not None else ""


def _both(ours: Opened, theirs: Opened, name: str) -> str:
    left, right = ours.secrets.get(name), theirs.secrets.get(name)
    if left is None or right is None:
        return "one side does not have it"
    said = [
        f"{side} {'removed it' if each.removed else f'has version {each.version}'} by {each.signer} "
        f"({each.rotated:%Y-%m-%d %H:%M})"
        for side, (_, each) in ((Side.OURS, left), (Side.THEIRS, right))
    ]
    return ", ".join(said)


def merge(base: Opened | None, ours: Opened, theirs: Opened, actor: Actor | None, chosen: Mapping[str, Side]) -> Change:
    """What this clone has to change to have both sides.

    Args:
        base: where they parted; ``None`` when that is not known.
        ours: of this clone.
        theirs: from elsewhere, verified.
        actor: signs what is chosen or sealed again; ``None`` for one who cannot.
        chosen: name of a secret, or ``members``, to the side that counts where both changed it.

    Raises:
        InvalidRequest: something clashes and was not chosen; the reason names it.
        PolicyDenied: it takes somebody who may sign it.
        IntegrityError: see ``compare``.
    """
    found = compare(base, ours, theirs)
    clashed = {clash.name for clash in found.clashes}
    chosen = _chosen(ours, theirs, actor, chosen, clashed)
    left = [clash for clash in found.clashes if clash.name not in chosen]
    if left:
        raise InvalidRequest(
            "both sides changed the same: " + "; ".join(f"{clash.name}: {clash.why}" for clash in left[:20]),
            "choose for each: --ours NAME or --theirs NAME; what is not chosen stays: keyhole repo history NAME",
        )
    sides = {Side.OURS: ours, Side.THEIRS: theirs}
    winner = sides[chosen.get(MEMBERS, found.members)]
    files: Files = {}
    if winner is theirs:
        _take_members(ours, theirs, files)
    loser = ours if winner is theirs else theirs
    everybody = _members_after(winner, loser, actor, files, parted=MEMBERS in clashed, mine=winner is ours)
    result: dict[str, Sidecar] = {}
    for name in sorted({*ours.secrets, *theirs.secrets}):
        weighed = found.weighed.get(name)
        if name in clashed:
            side = chosen[name]
        elif weighed is not None:
            side = weighed.side
        else:
            side = Side.OURS if name in ours.secrets else Side.THEIRS
        pair = _Pair(sides[side], ours if side is Side.THEIRS else theirs, weighed)
        each = _merged(name, pair, everybody, actor, files)
        if each is not None:
            result[name] = each
    _take_agents(ours, theirs, winner, everybody, files)
    files[MANIFEST] = write_manifest(manifest_of(everybody, result))
    files[OWNER] = everybody.owners[0].recipient.text.encode()
    changed = {path: data for path, data in files.items() if ours.tree.read(path) != data}
    due = tuple(sorted(name for name, each in result.items() if each.due and not each.removed))
    return Change("agent-vault: merge", changed, due)


def _chosen(
    ours: Opened, theirs: Opened, actor: Actor | None, chosen: Mapping[str, Side], clashed: set[str]
) -> dict[str, Side]:
    """What was chosen, by stem."""
    if actor is not None:
        ours.unlock(actor.identity)
        theirs.unlock(actor.identity)
    found = {}
    for name, side in chosen.items():
        stems = [name] if name == MEMBERS else [each.where(name) for each in (ours, theirs)]
        found[next((stem for stem in stems if stem in clashed), stems[0])] = side
    return found


@dataclass(frozen=True, slots=True)
class _Pair:
    """The side of a secret that counts, the other one, and how both were weighed where they are not alike."""

    source: Opened
    other: Opened
    weighed: Weighed | None


def _merged(name: str, pair: _Pair, everybody: Members, actor: Actor | None, files: Files) -> Sidecar | None:
    """One secret as it will be; its files go into ``files``."""
    source = pair.source
    if name not in source.secrets:
        return None
    document, each = source.secrets[name]
    other = pair.other.secrets.get(name, (document, each))
    path, enc, meta = signed_path(name), sealed_path(name), meta_path(name)
    verdict = Verdict.SAME if pair.weighed is None else pair.weighed.verdict
    signer = everybody.members.get(each.signer)
    also = tuple(name for name in each.besides(source.require_members()) if name in everybody.members)
    recipients = recipients_of(everybody, each.groups, also)
    texts = {recipient.text for recipient in recipients}
    fits = each.removed or texts == set(each.recipients)
    if signer is not None and signer.writes(each.groups) and fits and stands((document, each), other, verdict):
        files[path] = source.tree.require(path)
        files[enc] = None if each.removed else source.ciphertext(name)
    else:
        me = _signer(actor, everybody, each, name)
        sealed = None if each.removed else source.ciphertext(name)
        why = due(each, other[1])
        chosen = each.lineage.chosen if pair.weighed is None else pair.weighed.chosen
        if sealed is not None and not fits:
            sealed = age.encrypt(age.decrypt(sealed, [me.identity]), recipients)
            why = why or ("merge: it was readable before" if set(each.recipients) - texts else "")
        files[enc] = sealed
        each = replace(
            each,
            version=max(each.version, other[1].version) + 1,
            previous=document.digest,
            also=also,
            digest="" if sealed is None else digest(sealed),
            recipients=() if sealed is None else tuple(sorted(texts)),
            due=why,
            lineage=line((document, each)).joined(line(other), chosen),
        )
        files[path] = each.write(me.member.name, me.identity.signing)
        each = replace(each, signer=me.member.name)
    files[meta] = None if each.removed else write_meta(each.meta(everybody))
    return each


def _signer(actor: Actor | None, everybody: Members, each: Sidecar, name: str) -> Actor:
    """Who signs a secret again. Raises ``PolicyDenied`` for who may not."""
    member: Member | None = None if actor is None else everybody.of(actor.identity.recipient)
    if actor is None or member is None or not member.writes(each.groups):
        raise PolicyDenied(
            f"{name} has to be sealed again for who is a member now, and you may not",
            "ask an owner to pull, and to push what comes of it",
        )
    return replace(actor, member=member)


def _take_members(ours: Opened, theirs: Opened, files: Files) -> None:
    wanted = {*joining.chain(theirs.tree), *joining.aside(theirs.tree)}
    for path in wanted:
        files[path] = theirs.tree.require(path)
    for path in joining.chain(ours.tree):
        if path not in wanted:
            files[path] = None


def _members_after(
    winner: Opened, loser: Opened, actor: Actor | None, files: Files, *, parted: bool, mine: bool
) -> Members:
    """The list that counts, and what opens the names; one that others may not know yet says in whose place it is.

    Raises:
        PolicyDenied: it takes an owner, or for the names alone an admin.
    """
    everybody, changes = winner.require_members(), dict[str, Any]()
    if everybody.opaque:
        files[NAMES] = winner.tree.require(NAMES)
        sealed = _joined_names(winner, loser, actor) if parted else b""
        if sealed:
            files[NAMES], changes["names"] = sealed, digest(sealed)
    me = None if actor is None else everybody.of(actor.identity.recipient)
    if parted and me is not None and joining.may_join(everybody, loser.require_members(), me.sign):
        changes["over"] = (loser.digest,)
        files |= joining.kept_aside(winner.tree, loser.tree)
    elif parted and mine:
        raise PolicyDenied(
            "others have seen their list of members, and only who owns the vault by both puts ours in its place",
            "--theirs members, or ask an owner to pull",
        )
    if not changes:
        return everybody
    if actor is None or me is None or me.role not in RULERS:
        raise PolicyDenied("both sides have new keys of names, and you may not join them", "ask an owner to pull")
    everybody = everybody.changed(winner.digest, **changes)
    files[f"{SIGNED_MEMBERS}/{everybody.version:06}.json"] = everybody.write([(me.name, actor.identity.signing)])
    return everybody


def _joined_names(winner: Opened, loser: Opened, actor: Actor | None) -> bytes:
    """Where both sides made new keys of names, what opens the names of both, sealed; empty where nothing is new."""
    everybody = winner.require_members()
    if loser.require_members().names == everybody.names:
        return b""
    if actor is not None:
        winner.unlock(actor.identity)
        loser.unlock(actor.identity)
    if winner.book is not None and loser.book is not None and winner.book.covers(loser.book):
        return b""
    if loser.book is None:
        raise PolicyDenied("both sides have new keys of names, and you may not join them", "ask an owner to pull")
    recipients = [member.recipient for member in everybody.members.values()]
    return winner.require_book().joined(loser.book).seal(recipients)


def _take_agents(ours: Opened, theirs: Opened, winner: Opened, everybody: Members, files: Files) -> None:
    other = ours if winner is theirs else theirs
    for name in sorted({*ours.tree.names("agents"), *theirs.tree.names("agents")}):
        member = everybody.members.get(name)
        public, escrow = f"agents/{name}/public.key", f"agents/{name}/private.key.escrow"
        if member is None or member.role is Role.OWNER:
            files[public] = files[escrow] = None
            continue
        files[public] = member.recipient.text.encode()
        kept = winner.tree.read(escrow)
        files[escrow] = kept if kept is not None else other.tree.read(escrow)
