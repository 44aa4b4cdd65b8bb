"""Repo vaults from Python: read them where they lie, verified, with a key of one's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from keyhole.config import home
from keyhole.core.errors import NotFound
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo import keys
from keyhole.repo.finding import find_vault, require_own
from keyhole.repo.members import Role
from keyhole.repo.names import require_folder
from keyhole.repo.opened import Opened, open_vault
from keyhole.repo.reads import release
from keyhole.repo.tree import VAULT


@dataclass(frozen=True, slots=True)
class RepoSecret:
    """What is known of a secret without opening it.

    Attributes:
        name: ``group/name``.
        group: to which it belongs.
        created: when it was first stored.
        rotated: when its value was last changed.
        expires: when it is not to be used any more; ``None`` for never.
        agents: who can open it besides the owners.
        due: why its value has to be changed at its source; empty while it need not be.
    """

    name: str
    group: str
    created: datetime
    rotated: datetime
    expires: datetime | None
    agents: tuple[str, ...]
    due: str = ""


class RepoVault:
    """The repo vault around a folder.

        vault = RepoVault("~/team")
        vault.get("stripe/api-key")

    Args:
        path: inside the repository; where the process works unless said.
        key_file: with the key that opens it, or ``keychain:NAME``; else ``KEYHOLE_REPO_KEY``, ``AGENT_VAULT_KEY``, or
            the owner's. It has to open with nobody there.
        key: the key itself, instead of its file; it is written nowhere.
        environ: instead of that of the process.

    Raises:
        NotFound: there is no vault, or no key.
        PolicyDenied: the vault is above the folder, and of another user.
        IntegrityError: something in it is not genuine, or older than what this machine has seen.
        InvalidRequest: the key is none, or others can read its file.
        Sealed: the key is under a passphrase, or its keychain or token does not answer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ".",
        *,
        key_file: str | os.PathLike[str] | None = None,
        key: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        require_folder(os.fspath(path))
        start = Path(path).expanduser().resolve()
        root = find_vault(start)
        if root is None:
            raise NotFound(f"there is no {VAULT} in {start} or above it", "keyhole repo init")
        require_own(start, root, os.environ)
        self.root = root
        self._environ = os.environ if environ is None else environ
        self._identity = self._find(key_file, key, self._environ)
        self._opened = self._open()

    def _open(self) -> Opened:
        opened = open_vault(self.root, home())
        opened.unlock(self._identity)
        return opened

    @staticmethod
    def _find(key_file: str | os.PathLike[str] | None, key: str | None, environ: Mapping[str, str]) -> Identity:
        if key is not None:
            return age.find_identity(key)
        return keys.find(environ, "" if key_file is None else os.fspath(Path(key_file).expanduser()))

    @property
    def signed(self) -> bool:
        """Whether members and files are signed; whoever can write to an unsigned vault can change it unnoticed."""
        return self._opened.signed

    def reload(self) -> None:
        """Read the folder again, such as after a pull. Raises what opening raises."""
        self._opened = self._open()

    def get(self, name: str) -> str:
        """The value of a secret, read fresh from its file, once it is on record who reads it: ``keyhole repo reads``.

        Raises:
            AuditUnavailable: that cannot be recorded, such as below a ``KEYHOLE_HOME`` that cannot be written.
            NotFound: there is none, or it is not for this key.
            Expired: it is not to be used any more.
            IntegrityError: its file is not the one that a member wrote.
        """
        value = release(self._opened, self._identity, name, how="RepoVault.get", environ=self._environ)
        return value.reveal().decode()

    def list_secrets(self, group: str | None = None) -> list[RepoSecret]:
        """All secrets, or those of a group. Opens none."""
        found = [_described(self._opened, name) for name in sorted(self._opened.names(), key=self._opened.shown)]
        return [each for each in found if each is not None and group in {None, each.group}]

    def list_agents(self) -> dict[str, tuple[str, ...]]:
        """Who is granted what besides the owners: name to groups."""
        members = self._opened.members
        if members is None:
            return dict(self._opened.manifest.agents)
        shown = self._opened.shown
        people = [each for each in members.members.values() if each.role is not Role.OWNER]
        return {shown(each.name): tuple(map(shown, each.groups)) for each in people}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def __repr__(self) -> str:
        return f"RepoVault({str(self.root)!r})"


class AsyncRepoVault:
    """``RepoVault`` for asyncio; each call reads files in a thread.

    async with AsyncRepoVault("~/team") as vault:
        await vault.get("stripe/api-key")
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ".",
        *,
        key_file: str | os.PathLike[str] | None = None,
        key: str | None = None,
    ) -> None:
        self._how = (path, key_file, key)
        self._vault: RepoVault | None = None

    async def _open(self) -> RepoVault:
        if self._vault is None:
            path, key_file, key = self._how
            self._vault = await asyncio.to_thread(RepoVault, path, key_file=key_file, key=key)
        return self._vault

    async def get(self, name: str) -> str:
        """See ``RepoVault.get``."""
        return await asyncio.to_thread((await self._open()).get, name)

    async def list_secrets(self, group: str | None = None) -> list[RepoSecret]:
        """See ``RepoVault.list_secrets``."""
        return await asyncio.to_thread((await self._open()).list_secrets, group)

    async def list_agents(self) -> dict[str, tuple[str, ...]]:
        """See ``RepoVault.list_agents``."""
        return (await self._open()).list_agents()

    async def reload(self) -> None:
        """See ``RepoVault.reload``."""
        await asyncio.to_thread((await self._open()).reload)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open."""


def _described(opened: Opened, name: str) -> RepoSecret | None:
    meta = opened.meta(name)
    if meta is None:
        return None
    due = opened.sidecar(name).due if opened.signed else ""
    shown = opened.shown
    agents = tuple(map(shown, meta.agents))
    return RepoSecret(shown(meta.name), shown(meta.group), meta.created, meta.rotated, meta.expires, agents, shown(due))
