"""What was last seen of each vault on this machine, so that an older state is not taken for the present one.

A remote can give everybody an old copy that was genuine once. Whoever has seen a later one notices: versions never go
back, and two documents of one version never differ. It also remembers which vault lies where, and that it was signed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from keyhole.core.errors import IntegrityError, StoreUnavailable

FOLDER = "repos"


State = tuple[int, str]
"""Version and digest of a document."""
Known = tuple[int, str, str]
"""The same of a secret, and what others of that version have in common with it (``sidecar.alike``), or empty."""


@dataclass(frozen=True, slots=True)
class Met:
    """What is known of one remote of a vault.

    Attributes:
        members: version and digest of the list of members that it last had.
        secrets: the same of its secrets.
        version: its commit or snapshot from which this clone went on; empty for none.
        at: when that was, RFC 3339; empty for never.
    """

    members: State = (0, "")
    secrets: Mapping[str, Known] = field(default_factory=dict)
    version: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a pull is about to do to the folder, noted first so that it can be told afterwards whether it did.

    Attributes:
        remote: whose state is taken.
        version: of it.
        mark: of all files when it is done; empty where that is known otherwise.
        members: that are taken.
    """

    remote: str
    version: str
    mark: str
    members: State


@dataclass(slots=True)
class Seen:
    """The last state of one vault that was found genuine here.

    Attributes:
        vault: its id; empty for one that was never seen signed.
        members: version and digest of the list of members.
        secrets: secret to version and digest.
        remotes: name of a remote to what is known of it.
        begun: a pull that was not finished.
        sent: name of a remote to the snapshot that a push was about to make its head: where it counts, it is ours.
        path: where this is kept.
    """

    vault: str = ""
    members: State = (0, "")
    secrets: dict[str, Known] = field(default_factory=dict)
    remotes: dict[str, Met] = field(default_factory=dict)
    begun: Begun | None = None
    sent: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def load(cls, home: Path, root: Path) -> Seen:
        """What is remembered of the vault in a folder. Raises ``IntegrityError`` when that cannot be read."""
        return cls._read(place(home, root).with_suffix(".json"))

    @classmethod
    def _read(cls, path: Path) -> Seen:
        try:
            data = json.loads(path.read_bytes())
            remotes = {str(name): _met(each) for name, each in data.get("remotes", {}).items()}
            begun = None if data.get("begun") is None else _begun(data["begun"])
            sent = {str(name): str(each) for name, each in data.get("sent", {}).items()}
            return cls(
                str(data["vault"]), _state(data["members"]), _states(data["secrets"]), remotes, begun, sent, path
            )
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                f"{path} cannot be read, so an old state of the vault could not be told from the present one",
                "if you trust what lies there now, remove that file",
            ) from None

    def of_remote(self, remote: str) -> Seen:
        """By what a remote is judged: it may lack what is only here, and nothing that it once had."""
        met = self.remotes.get(remote, Met())
        return Seen(self.vault, met.members, dict(met.secrets))

    def if_begun(self) -> Seen | None:
        """By what the folder is judged too: a pull that was cut may have put other members in place of those here."""
        if self.begun is None:
            return None
        return replace(self, members=self.begun.members)

    def saw(self, remote: str, members: State, secrets: Mapping[str, Known]) -> None:
        """Keep what a remote was found to have, so that it serves nothing older later. ``store`` makes it last."""
        met = self.remotes.get(remote, Met())
        self.remotes[remote] = replace(met, members=members, secrets={**met.secrets, **secrets})

    def sync(self, remote: str, version: str, at: str) -> None:
        """This clone goes on from this version of the remote. ``store`` makes it last."""
        self.remotes[remote] = replace(self.remotes.get(remote, Met()), version=version, at=at)
        self.begun = None
        self.sent.pop(remote, None)

    def send(self, remote: str, version: str) -> None:
        """A push is about to make this what counts in the remote. Lasts at once."""
        self.sent[remote] = version
        self.store()

    def require_vault(self, vault: str) -> None:
        """Raises ``IntegrityError`` when another vault lies in the place of the one that was seen."""
        if self.vault and self.vault != vault:
            raise IntegrityError(
                "another vault lies where one was that this machine knows",
                f"if that is meant, remove {self.path}" if self.path else "open it in another folder",
            )

    def judge_secret(self, name: str, found: Known) -> None:
        """Judge a secret. Of two documents that say the same of one version the one with the lower digest is later.

        Raises:
            IntegrityError: see ``judge``.
        """
        seen = self.secrets.get(name)
        if seen is None or (seen[0] == found[0] and seen[2] and seen[2] == found[2] and found[1] < seen[1]):
            return
        self.judge(f"the secret {name}", seen[:2], *found[:2])

    def judge(self, what: str, seen: State | None, version: int, digest: str) -> None:
        """Raises ``IntegrityError`` for what is older than what was seen, or another document of the same version."""
        if seen is None:
            return
        if version < seen[0]:
            raise IntegrityError(
                f"{what} is at version {version}, and this machine has seen version {seen[0]}",
                "an old state is being served: fetch again, or ask who can write to the remote",
            )
        if version == seen[0] and digest != seen[1]:
            raise IntegrityError(
                f"{what} has two different versions {version}",
                "two people changed it at once, or somebody rewrote history: choose one in its history",
            )

    def remember(self, vault: str, members: State, secrets: Mapping[str, Known]) -> None:
        """Store what was found genuine now, durably, before anything of it is used.

        Args:
            vault: its id.
            members: version and digest of the list of members.
            secrets: secret to version and digest.
        """
        merged = {**self.secrets, **secrets}
        if (self.vault, self.members, self.secrets) != (vault, members, merged):
            self.vault, self.members, self.secrets = vault, members, merged
            if self.path is not None:  # who only reads the vault undoes nothing of what a pull has noted meanwhile
                now = Seen._read(self.path)
                self.remotes, self.begun, self.sent = now.remotes, now.begun, now.sent
            self.store()

    def store(self) -> None:
        """Make it last."""
        if self.path is None:
            return
        data = {
            "vault": self.vault,
            "members": self.members,
            "secrets": self.secrets,
            "remotes": {name: asdict(met) for name, met in self.remotes.items()},
            "begun": None if self.begun is None else asdict(self.begun),
            "sent": self.sent,
        }
        write_private(self.path, json.dumps(data).encode())


def place(home: Path, root: Path) -> Path:
    """Where this machine keeps what it knows of the vault in a folder, without a suffix."""
    return home / FOLDER / hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]


def write_private(path: Path, data: bytes) -> None:
    """Put a file of this user alone in place of another, durably. Raises ``StoreUnavailable``."""
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        fresh.rename(path)
    except OSError as error:
        raise StoreUnavailable(
            f"what this machine knows of the vault cannot be kept in {path.parent}: {error.strerror}",
            "let KEYHOLE_HOME name a folder that can be written, in a CI job such as one below $RUNNER_TEMP",
        ) from None


def _state(pair: Any) -> State:
    version, digest = pair
    return int(version), str(digest)


def _states(table: Mapping[str, Any]) -> dict[str, Known]:
    return {str(name): (*_state(each[:2]), str(each[2]) if len(each) > 2 else "") for name, each in table.items()}


def _met(data: Mapping[str, Any]) -> Met:
    return Met(_state(data["members"]), _states(data["secrets"]), str(data["version"]), str(data["at"]))


def _begun(data: Mapping[str, Any]) -> Begun:
    return Begun(str(data["remote"]), str(data["version"]), str(data["mark"]), _state(data["members"]))
