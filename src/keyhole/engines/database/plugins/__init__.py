"""Shelf: kinds of databases. A plugin knows how to log in to one, and what its statements are when a role has none.

It is loaded when the first connection names it, so a driver that is not installed is missed only then.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.engines import DATABASES


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is: a canonical host with its port, or the folder of a local socket."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Is it a socket of this machine?"""
        return self.host.startswith("/")


@dataclass(frozen=True, slots=True)
class Login:
    """As whom to log in.

    Attributes:
        username: a name.
        password: its password.
        chain: a client certificate with its issuers and its key, as PEM; empty for none.
    """

    username: str
    password: str = field(repr=False)
    chain: str = field(default="", repr=False)


Kind = Literal["creation", "rollback", "revocation", "renewal", "password", "root"]
"""What statements are for; ``root`` is our own password."""


Dialled = Sequence[tuple[Address, str]]


class Refused(TargetFailed):
    """The database knows no such login, or not with this password."""


class Unsure(TargetFailed):
    """The connection broke off: nobody knows whether the database has done what it was told."""


class Session(Protocol):
    """One connection that is logged in."""

    async def run(self, statements: Sequence[str], *hidden: str, user: str = "") -> None:
        """Run statements in one transaction.

        Args:
            statements: filled in.
            hidden: texts that must not stand in an error.
            user: has to be there when they are done.

        Raises:
            Unsure: it is not known whether they are done.
            TargetFailed: one of them failed; nothing of them is done.
        """

    async def close(self) -> None:
        """Let it go."""


class Plugin(Protocol):
    """What a module of this shelf has.

    Attributes:
        TEMPLATE: of user names, where the connection has none.
        LONGEST: bytes of a user name.
    """

    TEMPLATE: str
    LONGEST: int

    def addresses(self, details: Mapping[str, Any]) -> list[Address]:
        """Where the settings of a connection lead. Raises ``InvalidRequest`` for settings that are not allowed."""

    async def connect(
        self, details: Mapping[str, Any], login: Login, dialled: Sequence[tuple[Address, str]]
    ) -> Session:
        """Log in.

        Args:
            details: settings of the connection.
            login: as whom.
            dialled: each address of ``addresses`` with what the guard let through for it, in order.

        Raises:
            Refused: it does not know this login.
            TargetFailed: it cannot be reached.
        """

    def statements(self, kind: Kind, texts: Sequence[str], details: Mapping[str, Any]) -> list[str]:
        """Statements of a role, each alone and with its places open, or the database's own where there are none.

        Raises:
            InvalidRequest: they cannot be read.
        """

    def kept(self, role: Mapping[str, Any]) -> list[str]:
        """What a lease keeps as ``revocation_statements``, so that the role may be gone. Raises ``InvalidRequest``."""

    def password_text(self, details: Mapping[str, Any], username: str, password: str) -> str:
        """What statements are given as the password: itself, or what the database keeps of it."""

    async def knows(self, session: Session, username: str) -> bool:
        """Is there a user of this name? Raises ``TargetFailed``."""

    async def users(self, session: Session, beginning: str) -> list[str]:
        """Names of users that begin so, at most 10,000. Raises ``TargetFailed``."""

    async def lock(self, session: Session, username: str) -> None:
        """Let a user log in no more, and end its sessions. Raises ``TargetFailed``."""

    async def drop(self, session: Session, username: str) -> None:
        """Take a user away with all that it was granted, and end its sessions. One that is gone is fine."""

    async def drop_all(self, session: Session, usernames: Sequence[str]) -> None:
        """``drop`` several, at less cost. Raises ``TargetFailed``; some of them may be gone then, or locked."""


def load(name: str) -> Plugin:
    """The plugin of this name.

    Raises:
        InvalidRequest: there is none, or its driver is not installed.
    """
    if name not in DATABASES:
        known = ", ".join(DATABASES)
        raise InvalidRequest(f"unrecognized database plugin: {name[:64]!r}", f"plugin_name is one of {known}")
    module: Any = importlib.import_module(f"keyhole.engines.database.plugins.{DATABASES[name]}")
    plugin: Plugin = module
    return plugin
