"""A repo vault as it was found: verified from the members down to each secret before anything of it is used.

A vault of the format that has no signed documents is opened all the same, and says so: whoever can write to it can add
recipients and swap secrets. Once this machine has seen it signed, it is refused unsigned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from keyhole.core.errors import Expired, IntegrityError, NotFound, PolicyDenied
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity, Recipient
from keyhole.repo import joining, members, sidecar, signed
from keyhole.repo.documents import Manifest, Meta, check_config, read_manifest, read_meta
from keyhole.repo.hidden import NAMES, Book, Kind, digest
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import Member, Members
from keyhole.repo.names import group_of, parse_part, parse_secret
from keyhole.repo.refusals import recorded, recording_beside
from keyhole.repo.seen import Known, Seen, State
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.signed import Signed
from keyhole.repo.tree import VAULT, Files, Tree

CONFIG, MANIFEST, OWNER = "config.yaml", "manifest.yaml", "owner.pub"
SIGNED_SECRETS = ".x/secrets"


def sealed_path(stem: str) -> str:
    """The age file of what lies at a stem (``Opened.where``), below the vault."""
    return f"secrets/{stem}.enc"


def meta_path(stem: str) -> str:
    """The format's own word of what lies at a stem."""
    return f"secrets/{stem}.meta"


def signed_path(stem: str) -> str:
    """What is signed of what lies at a stem."""
    return f"{SIGNED_SECRETS}/{stem}.json"


@dataclass(slots=True)
class Opened:
    """One vault.

    Attributes:
        tree: its files.
        seen: what was seen of it before.
        members: who may open and change it; ``None`` for a vault without signed documents.
        digest: of the document of the members.
        secrets: the signed documents, each with what it says; empty for a vault without.
        manifest: the format's own list, which counts only where nothing is signed.
        book: the names, in a vault that hides them and was unlocked.
    """

    tree: Files
    seen: Seen
    members: Members | None
    digest: str
    secrets: dict[str, tuple[Signed, Sidecar]] = field(default_factory=dict)
    manifest: Manifest = field(default_factory=Manifest)
    book: Book | None = None

    @property
    def signed(self) -> bool:
        """Whether it has members and sidecars."""
        return self.members is not None

    def require_members(self) -> Members:
        """The members. Raises ``IntegrityError`` for a vault that has none."""
        if self.members is None:
            raise IntegrityError("nothing in this vault is signed", "its owner takes it over with: keyhole repo adopt")
        return self.members

    def member(self, identity: Identity) -> Member:
        """Who an identity is here. Raises ``PolicyDenied`` for a stranger."""
        member = self.require_members().of(identity.recipient)
        if member is None:
            raise PolicyDenied("this key is of nobody in this vault", "ask an owner: keyhole repo add-member")
        return member

    def where(self, name: str) -> str:
        """The stem of a secret's files: two parts, a path below ``secrets`` and ``.x/secrets`` without its suffix.

        Stems are what everything in a vault is keyed by: ``names``, ``secrets``, what was seen, what a change says. Ask
        for the stem of whatever a person names; of a stem it is the stem itself. Nothing needs to be there.

        Raises:
            InvalidRequest: it is no name of a secret.
        """
        name = parse_secret(name)
        if not self.opaque or name in self.secrets:
            return name
        return self.require_book().stem(name)

    def hidden(self, kind: Kind, name: str) -> str:
        """What stands for the name of a group, member or host in the files: itself, or its id in an opaque vault.

        Raises:
            InvalidRequest: it is no such name.
            PolicyDenied: names are hidden here, and this key reads none.
        """
        name = name if kind is Kind.HOST else parse_part(name, kind)
        return self.require_book().hide(kind, name) if self.opaque else name

    def shown(self, text: str) -> str:
        """A text for people, with the names that its stems and other ids stand for, as far as they can be read here."""
        return text if self.book is None else self.book.shown(text)

    @property
    def opaque(self) -> bool:
        """Whether ids stand for the names (``repo.hidden``)."""
        return self.members is not None and self.members.opaque

    def unlock(self, identity: Identity) -> None:
        """Read the names, where they are hidden. A key of nobody here reads none.

        Raises:
            IntegrityError: what opens them is not what the list of members says.
        """
        everybody = self.members
        if everybody is None or not everybody.opaque or self.book is not None:
            return
        with recording_beside(self.seen.path):
            sealed = self.tree.require(NAMES)
            if digest(sealed) != everybody.names:
                raise IntegrityError(
                    f"{VAULT}/{NAMES} is not the file that the list of members says", "restore it from its history"
                )
        try:
            book = Book.open(everybody.vault, sealed, identity)
        except NotFound:
            return
        book.learn(self.secrets)
        book.learn(name for member in everybody.members.values() for name in (member.name, *member.groups))
        book.learn(group for _, each in self.secrets.values() for group in each.groups)
        self.book = book

    def require_book(self) -> Book:
        """The names of an opaque vault. Raises ``PolicyDenied`` where they cannot be read."""
        if self.book is None:
            raise PolicyDenied(
                "the names in this vault are hidden, and no key of a member is here", "--key FILE, or give the id"
            )
        return self.book

    def names(self) -> list[str]:
        """The stems of all secrets."""
        if self.signed:
            return sorted(name for name, (_, each) in self.secrets.items() if not each.removed)
        return sorted(name for name in self.tree.files("secrets", ".enc") if _is_name(name))

    def sidecar(self, name: str) -> Sidecar:
        """What is signed of a secret. Raises ``NotFound``."""
        found = self.secrets.get(self.where(name))
        if found is None or found[1].removed:
            raise NotFound(f"there is no secret {name!r} in this vault", "keyhole repo list")
        return found[1]

    def ciphertext(self, name: str) -> bytes:
        """The age file of a secret, genuine where that is signed.

        Raises:
            NotFound: there is none.
            IntegrityError: it is missing, or not the one that was signed.
        """
        stem = self.where(name)
        if not self.signed:
            data = self.tree.read(sealed_path(stem))
            if data is None:
                raise NotFound(f"there is no secret {name!r} in this vault", "keyhole repo list")
            return data
        document, found = self.secrets[self.sidecar(stem).secret]
        with recording_beside(self.seen.path):
            data = self.tree.require(sealed_path(stem))
            sidecar.require_genuine(document, found, self.require_members(), data)
        return data

    def get(self, name: str, identities: Iterable[Identity], now: datetime | None = None) -> Secret:
        """The value of a secret.

        Raises:
            NotFound: there is none, or it is not for these keys.
            Expired: it is not to be used any more.
            IntegrityError: it was changed by somebody who may not.
        """
        keys = list(identities)
        for identity in keys:
            self.unlock(identity)
        name = self.where(name)
        data = self.ciphertext(name)
        meta = self.meta(name)
        if meta is not None and meta.expires is not None and meta.expires <= (now or datetime.now(UTC)):
            raise Expired(f"the secret {name!r} has expired", "store a new value: keyhole repo set NAME")
        try:
            return Secret(age.decrypt(data, keys))
        except NotFound:
            said = f"the secret {name!r} is not for this key"
            raise NotFound(said, f"use another key, or ask an owner: keyhole repo grant YOU {group_of(name)}") from None

    def meta(self, name: str) -> Meta | None:
        """What is known of a secret; ``None`` where the format's own file is missing or cannot be read."""
        if self.members is not None:
            return self.sidecar(name).meta(self.members)
        data = self.tree.read(meta_path(self.where(name)))
        try:
            return None if data is None else read_meta(data, f"{name}.meta")
        except IntegrityError:
            return None

    def hosts(self, name: str) -> tuple[tuple[str, ...], ...]:
        """The hosts of each group of a secret that is limited to some; what cannot be read is an id, and no host.

        Raises:
            NotFound: there is no such secret.
        """
        if self.members is None:
            return ()
        groups, limits = self.sidecar(name).groups, self.members.hosts
        return tuple(tuple(map(self.shown, limits[group])) for group in groups if group in limits)

    def state(self) -> tuple[State, dict[str, Known]]:
        """Version and digest of the list of members, and what is to be known of each secret."""
        secrets = {name: _known(*found) for name, found in self.secrets.items()}
        return (self.require_members().version, self.digest), secrets

    def remember(self) -> None:
        """Keep what was found, so that nothing older is believed later."""
        if self.members is not None:
            self.seen.remember(self.members.vault, *self.state())


@recorded
def open_vault(root: Path, home: Path) -> Opened:
    """Open the vault of a folder, verify all that is signed, and remember it.

    Args:
        root: the folder that has ``.agent-vault``.
        home: where this machine keeps what it has seen.

    Raises:
        NotFound: there is no vault.
        IntegrityError: something in it is not genuine, is older than what was seen, or is no vault of this format.
    """
    tree = Tree(root)
    if not tree.exists():
        raise NotFound(f"there is no vault in {root}", "keyhole repo init")
    tree.settle()
    try:
        found = _judged(tree, Seen.load(home, root))
    except IntegrityError:  # another command may have been changing it just now
        tree.wait()
        found = _judged(tree, Seen.load(home, root))
    found.remember()
    return found


def _judged(tree: Files, seen: Seen) -> Opened:
    """Verify a folder, in which a pull that was cut may have put other members in place of those that were seen."""
    try:
        return verify(tree, seen)
    except IntegrityError:
        other = seen.if_begun()
        if other is None:
            raise
        return verify(tree, other)


def verify(tree: Files, seen: Seen) -> Opened:
    """Verify the files of a vault, as far as anything is signed. Nothing is remembered.

    Raises:
        IntegrityError: something in it is not genuine, is older than what was seen, or is no vault of this format.
    """
    check_config(tree.require(CONFIG))
    manifest = tree.read(MANIFEST)
    found = Opened(tree, seen, None, "", {}, read_manifest(manifest) if manifest is not None else Manifest())
    numbered = joining.chain(tree)
    if not numbered:
        if seen.vault:
            raise IntegrityError(
                "this vault was signed when this machine saw it last, and is not any more",
                "somebody took the signatures away: restore .agent-vault/.x from its history",
            )
        return found
    found.members, found.digest = _members(tree, seen, numbered)
    _secrets(found)
    return found


def _members(tree: Files, seen: Seen, numbered: list[str]) -> tuple[Members, str]:
    """The members now, followed from the version that was seen, or from the first on a machine that has seen none."""
    if numbered != [f"{SIGNED_MEMBERS}/{number:06}.json" for number in range(1, len(numbered) + 1)]:
        raise IntegrityError(f"{VAULT}/{SIGNED_MEMBERS} has a gap", "restore it from its history")
    current: Members | None = None
    digests = [""]
    for path in numbered:
        document = signed.read(members.KIND, tree.require(path), path)
        if current is None:
            current = members.read(document)
            if (current.version, current.previous) != (1, "") or not _is_by_an_owner(document, current):
                raise IntegrityError(f"{path} is not signed by an owner whom it names", "restore it from its history")
            seen.require_vault(current.vault)
        else:
            current = members.require_follows(current, digests[-1], document)
        digests.append(document.digest)
    if current is None:  # pragma: no cover - there is at least one
        raise IntegrityError("there are no members")
    version, digest = seen.members
    if version and digest not in digests and not joining.leads(tree, digest):
        at = min(version, current.version)
        seen.judge("the list of members", seen.members, at, digests[at])
    return current, digests[-1]


def _is_by_an_owner(document: Signed, found: Members) -> bool:
    return any(document.is_by(owner.name, owner.sign) for owner in found.owners)


def _secrets(found: Opened) -> None:
    """Read and judge the document of each secret; each ciphertext is judged when it is wanted."""
    everybody = found.require_members()
    for name in found.tree.files(SIGNED_SECRETS, ".json"):
        path = signed_path(name)
        if not _is_name(name):
            raise IntegrityError(f"{path!r} is not named like a file of a vault", "somebody put it there: remove it")
        document = signed.read(sidecar.KIND, found.tree.require(path), path)
        each = sidecar.read(document, parse_secret(name))
        sidecar.require_genuine(document, each, everybody, None)
        found.seen.judge_secret(name, _known(document, each))
        found.secrets[name] = (document, each)
    for name in found.seen.secrets:
        if name not in found.secrets:
            raise IntegrityError(
                f"the secret {name} was here when this machine looked last, and is gone without a signed removal",
                "fetch again, or restore it from its history",
            )


def _known(document: Signed, each: Sidecar) -> Known:
    return each.version, document.digest, sidecar.alike(document, each)


def _is_name(text: str) -> bool:
    try:
        return parse_secret(text) == text
    except Exception:  # noqa: BLE001 - any refusal
        return False


def recipients_of(everybody: Members, groups: Iterable[str], also: Iterable[str] = ()) -> list[Recipient]:
    """For whom a secret of these groups is sealed, the owners first."""
    return [member.recipient for member in everybody.readers(groups, also)]
