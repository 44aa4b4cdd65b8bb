"""What is signed of each secret: which ciphertext it is, for whom, and which came before.

``.agent-vault/.x/secrets/GROUP/NAME.json`` lies beside the age file and changes with it, so secrets of two people merge
as files do. A ciphertext in another's place, of another time or by somebody who may not write it does not fit it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.signing import SigningKey
from keyhole.repo import lineage, signed
from keyhole.repo.documents import Meta, instant
from keyhole.repo.lineage import Line, Lineage
from keyhole.repo.members import Members, require_hidden
from keyhole.repo.names import group_of, hidden_kind, one_line, parse_line, parse_part, parse_secret
from keyhole.repo.signed import Signed

KIND = "secret"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One version of one secret.

    Attributes:
        secret: ``group/name``.
        version: from 1, without a gap; a rewrap is a version too.
        previous: digest of the version before; empty for the first.
        groups: to which it belongs.
        also: members for whom it is sealed besides those who are granted a group.
        digest: SHA-256 of the age file, in hexadecimal; empty for a secret that was removed.
        recipients: for whom it is sealed, as the members have them.
        created: when it was first stored.
        rotated: when its value was last changed.
        expires: when it is not to be used any more; ``None`` for never.
        due: why its value has to be changed at the source; empty while it need not be.
        signer: who made this version.
        removed: it is no more.
        lineage: from which versions it goes on.
    """

    secret: str
    version: int
    previous: str
    groups: tuple[str, ...]
    also: tuple[str, ...]
    digest: str
    recipients: tuple[str, ...]
    created: datetime
    rotated: datetime
    expires: datetime | None = None
    due: str = ""
    signer: str = ""
    removed: bool = False
    lineage: Lineage = field(default_factory=Lineage)

    def meta(self, members: Members) -> Meta:
        """What the format's own ``.meta`` says of it."""
        agents = tuple(m.name for m in members.readers(self.groups, self.also) if m.recipient.text in self.recipients)
        owners = {owner.name for owner in members.owners}
        group = self.groups[0] if self.groups else group_of(self.secret)
        listed = tuple(name for name in agents if name not in owners)
        return Meta(self.secret, group, self.created, self.rotated, self.expires, listed)

    def besides(self, members: Members) -> tuple[str, ...]:
        """Of ``also`` those who still have the key for which it is sealed: a name alone opens nothing.

        Args:
            members: at the time of this version, or before anything is changed after it.
        """
        found = ((name, members.members.get(name)) for name in self.also)
        return tuple(name for name, one in found if one is not None and one.recipient.text in self.recipients)

    def next(self, digest: str, ciphertext: bytes, recipients: Iterable[str], **changes: Any) -> Sidecar:
        """The next version; ``digest`` is of this one's document."""
        sealed = hashlib.sha256(ciphertext).hexdigest()
        fresh = {"digest": sealed, "recipients": tuple(recipients), "removed": False, **changes}
        return replace(self, version=self.version + 1, previous=digest, lineage=self._before(digest), **fresh)

    def gone(self, digest: str) -> Sidecar:
        """The next version, which says that the secret is no more."""
        version = self.version + 1
        gone = replace(self, version=version, previous=digest, lineage=self._before(digest))
        return replace(gone, digest="", recipients=(), due="", removed=True)

    def _before(self, digest: str) -> Lineage:
        return Line.of(self.version, digest, self.previous, self.lineage).after()

    def write(self, signer: str, key: SigningKey) -> bytes:
        """Its signed document."""
        if hidden_kind(group_of(self.secret)):
            require_hidden(self.secret.split("/"), self.groups, self.also, [signer])
        content = {
            "secret": self.secret,
            "version": self.version,
            "previous": self.previous,
            "groups": sorted(self.groups),
            "also": sorted(self.also),
            "digest": self.digest,
            "recipients": sorted(self.recipients),
            "created": instant(self.created),
            "rotated": instant(self.rotated),
            "expires": "" if self.expires is None else instant(self.expires),
            "due": one_line(self.due),
            "signer": signer,
            "removed": self.removed,
            **self.lineage.content,
        }
        return signed.write(KIND, content, [(signer, key)])


def first(
    secret: str,
    groups: Iterable[str],
    ciphertext: bytes,
    recipients: Iterable[str],
    now: datetime,
    also: Iterable[str] = (),
) -> Sidecar:
    """The first version of a secret."""
    digest = hashlib.sha256(ciphertext).hexdigest()
    return Sidecar(secret, 1, "", tuple(groups), tuple(also), digest, tuple(recipients), now, now)


def read(document: Signed, secret: str) -> Sidecar:
    """What a document says of a secret, without a look at who signed it.

    Raises:
        IntegrityError: it is none, or is of another secret.
    """
    content = document.content
    try:
        found = Sidecar(
            parse_secret(str(content["secret"])),
            int(content["version"]),
            str(content["previous"]),
            tuple(parse_part(str(group), "group") for group in content["groups"]),
            tuple(parse_part(str(name), "member") for name in content["also"]),
            str(content["digest"]),
            tuple(map(str, content["recipients"])),
            _instant(content["created"]),
            _instant(content["rotated"]),
            _instant(content["expires"]) if content["expires"] else None,
            parse_line(str(content["due"])),
            str(content["signer"]),
            content["removed"] is True,
            lineage.read(content),
        )
    except (InvalidRequest, KeyError, TypeError, ValueError, OverflowError):
        raise IntegrityError(f"{document.where} does not describe a secret", "restore it from its history") from None
    if found.secret != secret:
        raise IntegrityError(f"{document.where} is of {found.secret}", "somebody put it there: restore it")
    return found


def alike(document: Signed, sidecar: Sidecar) -> str:
    """What two documents have in common that bring the same lines together with the same result.

    They differ in who did that, in the file (each is sealed with other random bytes) and in the side that was there
    before. Empty for a version that is an event: there is no other like it.
    """
    if not sidecar.lineage.joins:
        return ""
    own = {name: each for name, each in document.content.items() if name not in {"signer", "digest", "previous"}}
    return Signed(KIND, own, {}, document.where).digest


def require_genuine(document: Signed, sidecar: Sidecar, members: Members, ciphertext: bytes | None) -> None:
    """See that a member who may write it made this version, and that it is this ciphertext.

    Raises:
        IntegrityError: it is not.
    """
    signer = members.members.get(sidecar.signer)
    if signer is None or not signer.writes(sidecar.groups) or not document.is_by(signer.name, signer.sign):
        raise IntegrityError(
            f"{sidecar.secret} was written by nobody who may write it",
            "see its history, then: keyhole repo adopt, or ask an owner",
        )
    if ciphertext is not None and hashlib.sha256(ciphertext).hexdigest() != sidecar.digest:
        raise IntegrityError(
            f"{sidecar.secret} is not the file that {sidecar.signer} wrote",
            "it was changed without Keyhole: see its history, then keyhole repo adopt",
        )


def _instant(text: Any) -> datetime:
    return datetime.fromisoformat(str(text)).astimezone(UTC)
