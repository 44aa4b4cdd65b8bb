"""The versions of a secret, verified as far as they can be, and the way back to one of them.

A version is of the *line* when the one that counts today leads to it by digests and a member signed it who might then;
it stands *aside* when it is not (what a merge did not choose), and somebody signed it who may write the secret today.
Anything else is shown, said to be unverified, and never opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from keyhole.core.errors import Conflict, Expired, IntegrityError, KeyholeError, NotFound
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo import changes, sidecar, signed
from keyhole.repo.members import Members
from keyhole.repo.opened import Opened, recipients_of, sealed_path, signed_path
from keyhole.repo.past import Past, Trace, everybody
from keyhole.repo.sealing import Actor
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.signed import Signed
from keyhole.repo.tree import Change

_ADOPTED = "agent-vault: adopt"


class Standing(StrEnum):
    """How far a version can be trusted."""

    LINE = "line"
    ASIDE = "aside"
    UNVERIFIED = "unverified"


class Kind(StrEnum):
    """What a version brought."""

    VALUE = "new value"
    REWRAP = "rewrap"
    REMOVED = "removed"
    ADOPTED = "adopted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a secret.

    Attributes:
        label: how it is named: its number; one that is not of the line has the start of its digest besides.
        standing: see ``Standing``.
        why: it is unverified, or else empty.
        kind: see ``Kind``.
        described: what is signed of it; ``None`` where that cannot be read.
        digest: of the signed document.
        readers: for whom it is sealed: members by name, and keys that no member has or had.
        trace: where it came in; ``None`` for one that is not committed.
    """

    label: str
    standing: Standing
    why: str
    kind: Kind
    described: Sidecar | None
    digest: str
    readers: tuple[str, ...] = ()
    trace: Trace | None = None

    @property
    def when(self) -> datetime | None:
        """When: the signed time of a new value, else that of the commit."""
        if self.kind is Kind.VALUE and self.described is not None:
            return self.described.rotated
        return None if self.trace is None else self.trace.time


@dataclass(slots=True)
class History:
    """The versions of one secret, the newest first.

    Attributes:
        name: the stem of the secret.
        versions: what is known.
        lost: the highest number of the line of which nothing is left here, as in a shallow clone; 0 for none.
    """

    name: str
    versions: list[Version] = field(default_factory=list)
    lost: int = 0

    def find(self, label: str) -> Version:
        """A version by its label, or by the start of its digest or of its commit.

        Raises:
            NotFound: there is none.
            IntegrityError: it is not verified.
        """
        found = [each for each in self.versions if each.label == label]
        if not found and len(label) >= 7:
            found = [
                each
                for each in self.versions
                if each.digest.startswith(label) or (each.trace is not None and each.trace.place.startswith(label))
            ]
        if not found and label.isdecimal() and 0 < int(label) <= self.lost:
            raise NotFound(
                f"version {label} of {self.name} is not in the history that is here", "a deeper clone may have it"
            )
        if not found:
            raise NotFound(f"there is no version {label[:40]!r} of {self.name}", f"keyhole repo history {self.name}")
        if found[0].standing is Standing.UNVERIFIED or found[0].described is None:
            raise IntegrityError(f"version {label} of {self.name} is not genuine: {found[0].why}", "use another one")
        return found[0]


def history(opened: Opened, past: Past | None, name: str) -> History:
    """The versions of a secret.

    Args:
        opened: the vault of today.
        past: where it was before; ``None`` where nothing is kept.
        name: ``group/name``, of one that was removed as well.

    Raises:
        NotFound: there never was one.
        IntegrityError: the vault is not signed.
    """
    opened.require_members()
    stem = opened.where(name)
    traces = [] if past is None else past.traces([signed_path(stem)])
    found = versions_of(opened, everybody(opened), stem, (t for t in traces if t.path == signed_path(stem)))
    if not found.versions:
        raise NotFound(f"there never was a secret {name!r} in this vault", "keyhole repo list")
    return found


def versions_of(opened: Opened, lists: list[Members], stem: str, traces: Iterable[Trace]) -> History:
    """The versions that these traces and the vault of today have of a secret."""
    documents: dict[str, tuple[Signed, Sidecar, Trace | None]] = {}
    found = History(stem)
    for trace in traces:
        try:
            if trace.data is None:
                raise IntegrityError(f"{trace.path} is no plain file, or too long")
            document = signed.read(sidecar.KIND, trace.data, trace.path)
            documents.setdefault(document.digest, (document, sidecar.read(document, stem), trace))
        except KeyholeError as error:
            digest = hashlib.sha256(trace.data or b"").hexdigest()
            label = f"?@{digest[:8]}"
            unread = Version(label, Standing.UNVERIFIED, error.reason, Kind.UNKNOWN, None, digest, trace=trace)
            found.versions.append(unread)
    current = opened.secrets.get(stem)
    if current is not None:
        documents.setdefault(current[0].digest, (*current, None))
    line = _line(documents, current[0].digest if current is not None else "")
    oldest = documents[line[-1]][1] if line else None
    found.lost = oldest.version - 1 if oldest is not None and oldest.previous else 0
    made = [_version(opened, lists, digest, documents, line) for digest in documents]
    found.versions += made
    order = {digest: place for place, digest in enumerate(documents)}
    found.versions.sort(
        key=lambda each: (each.described.version if each.described else 0, order.get(each.digest, -1)), reverse=True
    )
    return found


def _line(documents: Mapping[str, tuple[Signed, Sidecar, Trace | None]], digest: str) -> list[str]:
    """Digests from the version that counts to the first that is known."""
    line: list[str] = []
    while digest in documents and digest not in line:
        line.append(digest)
        digest = documents[digest][1].previous
    return line


def _version(
    opened: Opened,
    lists: list[Members],
    digest: str,
    documents: Mapping[str, tuple[Signed, Sidecar, Trace | None]],
    line: list[str],
) -> Version:
    document, each, trace = documents[digest]
    before = documents.get(each.previous)
    standing, why = Standing.LINE, ""
    if digest in line:
        if not any(_is_genuine(document, each, members) for members in lists):
            standing, why = Standing.UNVERIFIED, f"no member signed it as {each.signer}"
    elif _is_genuine(document, each, opened.require_members()):
        standing = Standing.ASIDE
    else:
        standing, why = Standing.UNVERIFIED, "nothing leads to it, and nobody signed it who may write it today"
    label = str(each.version) if standing is Standing.LINE else f"{each.version}@{digest[:8]}"
    kind = _kind(each, None if before is None else before[1], trace)
    return Version(label, standing, why, kind, each, digest, readers_of(lists, each.recipients), trace)


def _is_genuine(document: Signed, each: Sidecar, members: Members) -> bool:
    try:
        sidecar.require_genuine(document, each, members, None)
    except IntegrityError:
        return False
    return True


def _kind(each: Sidecar, before: Sidecar | None, trace: Trace | None) -> Kind:
    if each.removed:
        return Kind.REMOVED
    if trace is not None and trace.message == _ADOPTED:
        return Kind.ADOPTED
    if each.version == 1 or (before is not None and (before.removed or before.rotated != each.rotated)):
        return Kind.VALUE
    return Kind.REWRAP if before is not None else Kind.UNKNOWN


def readers_of(lists: Iterable[Members], recipients: Iterable[str]) -> tuple[str, ...]:
    """Who has these keys, or had them; keys that nobody has or had as they are."""
    known = {member.recipient.text: name for members in lists for name, member in members.members.items()}
    return tuple(sorted(known.get(text, text) for text in recipients))


def open_version(opened: Opened, past: Past | None, found: Version, identity: Identity) -> Secret:
    """The value that a version had.

    Raises:
        NotFound: it was a removal, its file is nowhere, or is not for this key.
        IntegrityError: its file is not the one that was signed.
    """
    return Secret(_open(opened, past, found, identity))


def _open(opened: Opened, past: Past | None, found: Version, identity: Identity) -> bytes:
    each = found.described
    if each is None or each.removed:
        raise NotFound(f"version {found.label} says that the secret is no more", "choose the version before it")
    path = sealed_path(each.secret)
    data = opened.tree.read(path) if found.trace is None or past is None else past.at(found.trace.place).read(path)
    if data is None:
        raise NotFound(
            f"the file of version {found.label} of {each.secret} is not in the history", "a deeper clone may have it"
        )
    if hashlib.sha256(data).hexdigest() != each.digest:
        raise IntegrityError(
            f"the file of version {found.label} of {each.secret} is not the one that {each.signer} wrote",
            "somebody changed it without Keyhole: choose another version",
        )
    return age.decrypt(data, [identity])


def require_current(found: Version, now: datetime) -> None:
    """Raises ``Expired`` for a version that is not to be given out any more."""
    each = found.described
    if each is not None and each.expires is not None and each.expires <= now:
        raise Expired(f"version {found.label} of {each.secret} has expired", "store a new value: keyhole repo set NAME")


def roll_back(opened: Opened, actor: Actor, past: Past | None, name: str, label: str) -> Change:
    """A new version that has the value of an old one, sealed for who reads the secret today.

    It is due where somebody could read that value who may not today, where it was due before, and where that is not
    known because a part of its history is not here.

    Raises:
        NotFound, IntegrityError: see ``History.find`` and ``open_version``.
        Conflict: it is the value that the secret has.
        PolicyDenied: the actor may not write the secret.
    """
    members, everything = opened.require_members(), history(opened, past, name)
    found = everything.find(label)
    value = _open(opened, past, found, actor.identity)
    old = _described(found)
    stem = everything.name
    today = opened.secrets[stem][1] if stem in opened.secrets else old
    if not today.removed and today.rotated == old.rotated:
        raise Conflict(f"version {label} of {name} has the value that the secret has now", "there is nothing to do")
    also = (old if today.removed else today).besides(members)
    readers = {recipient.text for recipient in recipients_of(members, today.groups, also)}
    same = _versions_with(opened, past, everything, value, actor.identity)
    due = _why_due(opened, everything, found, same, readers)
    change = changes.store(
        opened, actor, stem, Secret(value), groups=today.groups, also=also, expires=old.expires, due=due
    )
    message = f"agent-vault: roll {stem} back to version {found.label}"
    return Change(message, change.files, (stem,) if due else ())


def _described(found: Version) -> Sidecar:
    if found.described is None:  # pragma: no cover - find has refused it
        raise NotFound("there is no such version")
    return found.described


def _versions_with(
    opened: Opened, past: Past | None, everything: History, value: bytes, identity: Identity
) -> list[Sidecar]:
    """Every verified version that has this value: it may have come back before, under another time."""
    known = [
        (each, each.described)
        for each in everything.versions
        if each.standing is not Standing.UNVERIFIED and each.described is not None and not each.described.removed
    ]
    equal: dict[datetime, bool] = {}
    for each, described in known:
        if described.rotated not in equal:
            with contextlib.suppress(KeyholeError):  # one that is not for this key
                opened_again = _open(opened, past, each, identity)
                equal[described.rotated] = hmac.compare_digest(opened_again, value)
    return [described for _, described in known if equal.get(described.rotated)]


def _why_due(opened: Opened, everything: History, found: Version, same: list[Sidecar], readers: set[str]) -> str:
    start = f"rolled back to version {found.label}"
    lost = {text for one in same for text in one.recipients} - readers
    if lost:
        who = ", ".join(name if len(name) <= 60 else name[:20] for name in readers_of(everybody(opened), lost))
        return f"{start}: it was readable before by {who}"
    said = next((one.due for one in same if one.due), "")
    if said:
        return f"{start}: it was due ({said})"
    if everything.lost and everything.lost >= min(one.version for one in same) - 1:
        return f"{start}: who could read it is not in the history that is here"
    return ""
