"""Where a command finds its vault and its key, and how a change of it is carried out and committed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.cli.base import Session
from keyhole.cli.repo.asking import asked_of
from keyhole.cli.repo.touched import touched_below
from keyhole.config import home
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, Sealed
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.remotes.git import Git
from keyhole.remotes.settings import GIT
from keyhole.repo import keys
from keyhole.repo.finding import find_vault, require_own
from keyhole.repo.hidden import Kind
from keyhole.repo.names import require_folder
from keyhole.repo.opened import Opened, open_vault, verify
from keyhole.repo.refusals import recording
from keyhole.repo.reviewing import require_kept_in_groups, require_signed
from keyhole.repo.sealing import Actor
from keyhole.repo.tree import Change, Tree

F = TypeVar("F", bound=Callable[..., Any])


def place_options(function: F) -> F:
    """``--dir`` and ``--key``."""
    for option in (
        click.option("--key", "key_file", default="", metavar="PLACE", help="Your key; else KEYHOLE_REPO_KEY."),
        click.option("--dir", "directory", default=".", metavar="DIR", help="Inside the repository; here unless said."),
    ):
        function = option(function)
    return function


class Place:
    """The vault around a folder.

    Args:
        session: of the command.
        directory: in which to begin to look.
        key_file: what ``--key`` said.
    """

    def __init__(self, session: Session, directory: str, key_file: str = "") -> None:
        self._session = session
        self._key_file = key_file
        self._identity: Identity | None = None
        self._said = False
        require_folder(directory)
        start = Path(directory).resolve()
        found = find_vault(start)
        if found is None:
            raise NotFound(f"there is no repo vault in {start} or above it", "keyhole repo init")
        self.tree = Tree(found)
        self.git = Git.find(found, os.environ)
        if self.git is None:  # it looks at that itself
            require_own(start, found, os.environ)

    def identity(self) -> Identity:
        """The key that counts. Raises ``NotFound``."""
        if self._identity is None:
            self._identity = keys.find(os.environ, self._key_file, asked_of(self._session))
        return self._identity

    def known(self) -> Identity | None:
        """The key that counts, or ``None``. One that is there and does not open is said, once."""
        try:
            return self.identity()
        except Sealed as error:
            if not self._said:
                self._said = True
                self._session.out.warn(f"your key does not open, so this is what anybody sees: {error.reason}")
        except KeyholeError:
            pass
        return None

    def open(self) -> Opened:
        """The vault, verified."""
        opened = open_vault(self.tree.root, home())
        self.show_names(opened)
        if not opened.signed:
            self._session.out.warn("nothing in this vault is signed: its owner takes it over with: keyhole repo adopt")
        return opened

    def show_names(self, opened: Opened) -> None:
        """In a vault that hides its names, what the command says has them for who can read them, and ids else."""
        if not opened.opaque:
            return
        identity = self.known()
        if identity is not None:
            opened.unlock(identity)
        before = self._session.out.shown
        self._session.out.shown = lambda text: opened.shown(before(text))

    def change(self, make: Callable[[Opened, Actor], Change]) -> Change:
        """Change the vault under its lock, and commit that; what an earlier command left is finished first."""
        return self.sign(lambda now, identity, opened: make(opened, Actor.of(opened, identity, now)), datetime.now(UTC))

    def sign(self, make: Callable[[datetime, Identity, Opened], Change], now: datetime) -> Change:
        """As ``change``, for who is no member yet."""
        with self.tree.lock():
            self.finish()
            opened = self.open()
            change = make(now, self.identity(), opened)
            self.carry_out(change)
            open_vault(self.tree.root, home())  # remembers it as seen
        return change

    @contextlib.contextmanager
    def undoing(self, undo: Callable[[], object]) -> Iterator[None]:
        """Where a command fails, undo what it had made for its change, unless that is carried out all the same."""
        try:
            yield
        except BaseException:
            if not self.tree.is_planned():
                undo()
            raise

    def finish(self) -> list[str]:
        """Carry on with what an earlier command had begun and was ended in; the lock is held. Returns what that was."""
        left = self.tree.left()
        done: list[str] = []
        if self.git is not None and (left is not None or self.git.is_moving(self.tree.root)):
            self.git.clear_locks()
            done.append(self.git.recover(self.tree.root))
        if left is not None:
            self._commit(left)
            done.append(left.message)
        done = [message for message in done if message]
        for message in done:
            self._session.out.say(f"finished what an earlier command had begun: {message}")
        return done

    def escrowed(self, name: str) -> Identity:
        """The key of an agent, from the copy that is sealed for the owners.

        Raises:
            NotFound: there is no such agent, or the escrow is not for this key.
            InvalidRequest: it is not the key that the agent has now.
        """
        opened = self.open()
        name = opened.hidden(Kind.MEMBER, name)
        sealed = self.tree.read(f"agents/{name}/private.key.escrow")
        if sealed is None:
            raise NotFound(f"agent '{name}' not found", "keyhole repo list-agents")
        identity = age.parse_identity(age.decrypt(sealed, [self.identity()]).decode(errors="replace"))
        known = None if opened.members is None else opened.members.members.get(name)
        if known is not None and known.recipient != identity.recipient:
            raise InvalidRequest(f"the escrowed key is not that of {name}", "keyhole repo recover-agent")
        return identity

    def theirs(self, git: Git, ours: Opened, commit: str) -> Opened:
        """The vault in a commit that was fetched, and all that it would change here, judged before any of it is taken.

        Raises:
            IntegrityError: it is not genuine, or old.
        """
        with recording(self.tree.root, home(), f"the remote {GIT}"):
            theirs = verify(git.at(commit, self.tree.root), ours.seen.of_remote(GIT))
            require_signed(theirs, touched_below(git, self.tree.root, git.head(), commit))
            require_kept_in_groups(ours, theirs)
        self.show_names(theirs)
        return theirs

    def refresh(self) -> None:
        """Take over what the remote has, where that only goes on from here; a remote that is away is passed over.

        What it has is verified first, and where that fails nothing of it is taken.
        """
        if self.git is None:
            return
        try:
            with self.tree.lock():
                self.finish()
                self._advance(self.git)
        except PermissionError:
            self._session.out.warn("nothing was taken from the remote: this folder can only be read")

    def _advance(self, git: Git) -> None:
        try:
            fetched, head = git.fetch(), git.head()
            if fetched and fetched != head and git.common(head, fetched) == head:
                self.theirs(git, self.open(), fetched)
                git.advance(fetched, self.tree.root, "agent-vault: pull")
        except KeyholeError as error:
            self._session.out.warn(f"nothing was taken from the remote: {error.reason}")

    def carry_out(self, change: Change) -> None:
        """Change the files as somebody else has signed them, and commit that; the lock is held."""
        self.tree.apply(change)
        self._commit(change)

    def _commit(self, change: Change) -> None:
        if self.git is not None:
            self.git.record(change, self.tree.root)
        self.tree.finish()
