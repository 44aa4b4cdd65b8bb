"""What was last seen of each vault on this machine, so that an older state is not taken for the present one.

A remote can give everybody an old copy that was genuine once. Whoever has seen a later one notices: versions never go
back, and two documents of one version never differ. It also remembers which vault lies where, and that it was signed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyhole.core.errors import IntegrityError

FOLDER = "repos"


State = tuple[int, str]
"""Version and digest of a document."""


@dataclass(slots=True)
class Seen:
    """The last state of one vault that was found genuine here.

    Attributes:
        vault: its id; empty for one that was never seen signed.
        members: version and digest of the list of members.
        secrets: secret to version and digest.
        synced: the same two as they were when this clone and its remote last had the same; ``None`` for never.
    """

    vault: str = ""
    members: State = (0, "")
    secrets: dict[str, State] = field(default_factory=dict)
    synced: tuple[State, dict[str, State]] | None = None
    path: Path | None = None

    @classmethod
    def load(cls, home: Path, root: Path) -> Seen:
        """What is remembered of the vault in a folder. Raises ``IntegrityError`` when that cannot be read."""
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        path = home / FOLDER / f"{name}.json"
        try:
            data = json.loads(path.read_bytes())
            synced = data["synced"]
            both = None if synced is None else (_state(synced["members"]), _states(synced["secrets"]))
            return cls(str(data["vault"]), _state(data["members"]), _states(data["secrets"]), both, path)
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                f"{path} cannot be read, so an old state of the vault could not be told from the present one",
                "if you trust what lies there now, remove that file",
            ) from None

    def of_remote(self) -> Seen:
        """By what the other side of a remote is judged: it may lack what is only here, and nothing that it once had."""
        members, secrets = self.synced or ((0, ""), {})
        return Seen(self.vault, members, dict(secrets))

    def accept(self, members: State) -> None:
        """A person has chosen this list of members in place of the one that was seen here."""
        self.members = members

    def require_vault(self, vault: str) -> None:
        """Raises ``IntegrityError`` when another vault lies in the place of the one that was seen."""
        if self.vault and self.vault != vault:
            raise IntegrityError(
                "another vault lies where one was that this machine knows",
                f"if that is meant, remove {self.path}" if self.path else "open it in another folder",
            )

    def judge(self, what: str, seen: tuple[int, str] | None, version: int, digest: str) -> None:
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

    def remember(self, vault: str, members: State, secrets: Mapping[str, State], *, synced: bool = False) -> None:
        """Store what was found genuine now, durably, before anything of it is used.

        Args:
            vault: its id.
            members: version and digest of the list of members.
            secrets: secret to version and digest.
            synced: the remote has the same.
        """
        merged = {**self.secrets, **secrets}
        both = (members, merged) if synced else self.synced
        if self.path is None or (self.vault, self.members, self.secrets, self.synced) == (vault, members, merged, both):
            return
        self.vault, self.members, self.secrets, self.synced = vault, members, merged, both
        data = {
            "vault": vault,
            "members": members,
            "secrets": merged,
            "synced": None if both is None else {"members": both[0], "secrets": both[1]},
        }
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(descriptor)
        fresh.rename(self.path)


def _state(pair: Any) -> State:
    version, digest = pair
    return int(version), str(digest)


def _states(table: Mapping[str, Any]) -> dict[str, State]:
    return {str(name): _state(pair) for name, pair in table.items()}
