"""The keychain of the operating system or desktop: Secret Service, KWallet, macOS, Windows.

Only these are used, and they are asked for by name: the library ``keyring`` would also pick up installed plug-ins,
among them such that write plaintext files. What its user has configured is respected, and refused if it is none of
these.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.keepers.bounded import bounded

TIMEOUT = 10.0
"""Seconds that a keychain gets to answer; a D-Bus without life would take for ever."""
PROMPT_TIMEOUT = 120.0
"""Seconds that a person gets to unlock it."""

_SECRET_SERVICE = (("keyring.backends.SecretService", "Keyring"), ("keyring.backends.libsecret", "Keyring"))
_KNOWN = (
    *_SECRET_SERVICE,
    ("keyring.backends.kwallet", "DBusKeyring"),
    ("keyring.backends.kwallet", "DBusKeyringKWallet4"),
    ("keyring.backends.macOS", "Keyring"),
    ("keyring.backends.Windows", "WinVaultKeyring"),
)
_ELSEWHERE = {"keyring.backends.macOS": "darwin", "keyring.backends.Windows": "win32"}
"""Which are of one system alone: on others they are not even loaded."""
_CHAINER = ("keyring.backends.chainer", "ChainerBackend")
T = TypeVar("T")


class Entries(Protocol):
    """What a keychain can do with its entries; each has a service and a user name."""

    def get_password(self, service: str, username: str) -> str | None:
        """The entry, or ``None``."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Make or replace an entry."""

    def delete_password(self, service: str, username: str) -> None:
        """Take an entry away; one that is not there is an error of the backend's own."""


@dataclass(frozen=True, slots=True)
class Keychain:
    """The keychain of this user's session, found anew at each use.

    Attributes:
        instead: what to use where there is none, for the next step that errors name.
        interactive: it may ask its user to unlock it; otherwise a locked one is ``Sealed`` at once.
        timeout: seconds for each operation; by default 10, with ``interactive`` 120.
    """

    instead: str
    interactive: bool = False
    timeout: float | None = None

    @property
    def hint(self) -> str:
        """The next step for who has none, or a locked one."""
        return f"unlock or start the keychain of your session, or {self.instead}"

    def run(self, work: Callable[[Entries], T]) -> T:
        """Do something with entries.

        Raises:
            Sealed: there is no keychain, it is locked, or it did not answer.
            InvalidRequest: what is configured is none.
            KeyholeError: what ``work`` gives.
        """

        def act() -> T:
            backend = self._backend()
            if not self.interactive:
                self._refuse_locked(backend)
            return work(backend)

        return self._bounded(act)

    def available(self) -> bool:
        """Whether there is one that is unlocked and answers. Never prompts."""
        try:
            self._bounded(lambda: self._refuse_locked(self._backend()))
        except KeyholeError:
            return False
        return True

    def _bounded(self, work: Callable[[], T]) -> T:
        timeout = self.timeout or (PROMPT_TIMEOUT if self.interactive else TIMEOUT)
        return bounded(work, timeout, self._failed, self.hint, what="the keychain")

    def _failed(self, error: Exception) -> Sealed:
        """Backends raise errors of D-Bus, GLib, COM: all mean the same."""
        what = "is locked" if type(error).__name__ == "KeyringLocked" else f"failed ({type(error).__name__})"
        return Sealed(f"the keychain {what}", self.hint)

    def _backend(self) -> Any:
        """The backend of ``keyring`` to use. Imports it here: most commands never need it."""
        core = importlib.import_module("keyring.core")
        configured = core.load_env() or core.load_config()
        if configured is None or _identity(configured) == _CHAINER:
            return self._best()
        if _identity(configured) not in _KNOWN:
            raise InvalidRequest(
                f"the keyring backend {'.'.join(_identity(configured))} is not the keychain of an operating system",
                f"unset PYTHON_KEYRING_BACKEND and default-keyring in keyringrc.cfg, or {self.instead}",
            )
        return configured

    def _best(self) -> Any:
        viable = []
        for module, name in _KNOWN:
            if _ELSEWHERE.get(module, sys.platform) != sys.platform:
                continue
            try:
                backend = getattr(importlib.import_module(module), name)
                viable.append((float(backend.priority), backend))
            except Exception:  # noqa: BLE001, S112  # each says in its own way that it is not for this system
                continue
        if not viable:
            raise Sealed("no keychain can be reached from here", self.hint)
        return max(viable, key=lambda pair: pair[0])[1]()

    def _refuse_locked(self, backend: Any) -> None:
        """Secret Service prompts when a locked collection is read, so its state is asked for first."""
        if _identity(backend) not in _SECRET_SERVICE:
            return
        secretstorage = importlib.import_module("secretstorage")
        with closing(secretstorage.dbus_init()) as connection:
            chosen = getattr(backend, "preferred_collection", None)
            try:
                collection = secretstorage.Collection(connection, *([chosen] if chosen else []))
            except secretstorage.ItemNotFoundException:
                raise Sealed("the keychain has no default collection yet", self.hint) from None
            if collection.is_locked():
                raise Sealed("the keychain is locked", self.hint)


def _identity(backend: Any) -> tuple[str, str]:
    return type(backend).__module__, type(backend).__qualname__
