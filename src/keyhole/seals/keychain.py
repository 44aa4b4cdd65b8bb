"""The seal of a desktop: the operating system's keychain keeps 32 random bytes, unlocked with the user's session.

Only keychains of an operating system or desktop are used, and they are asked for by name: the library ``keyring`` would
also pick up installed plug-ins, among them such that write plaintext files. What its user has configured is respected,
and refused if it is none of these.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import os
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import KEY_SIZE, does_not_open
from keyhole.seals import MEMBERS
from keyhole.seals.blob import HKDF, Header, close, disclose, from_random_key, read_own_header
from keyhole.seals.bounded import bounded

NAME = "keychain"
SERVICE = "keyhole"
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
_CHAINER = ("keyring.backends.chainer", "ChainerBackend")
T = TypeVar("T")
_USE_ANOTHER = "unlock or start the keychain of your session, or use --seal passphrase"


class KeychainSeal:
    """A seal that opens with an entry of the user's keychain: service ``keyhole``, user name the vault's id.

    Args:
        vault_id: id of the vault.
        create: make the entry if it is missing.
        interactive: the keychain may ask its user; otherwise a locked one is ``Sealed`` at once.
        timeout: seconds for each operation; by default 10, with ``interactive`` 120.
    """

    name = NAME
    unattended = True

    def __init__(
        self, vault_id: str, *, create: bool = False, interactive: bool = False, timeout: float | None = None
    ) -> None:
        self._vault_id = vault_id
        self._create = create
        self._interactive = interactive
        self._timeout = timeout or (PROMPT_TIMEOUT if interactive else TIMEOUT)

    def wrap(self, key: bytes) -> bytes:
        """The root key under the entry's key; makes the entry if this seal may."""
        header = Header.new(NAME, HKDF)
        return close(header, from_random_key(header, self._entry(create=self._create)), self._vault_id, key)

    def unwrap(self, blob: bytes) -> bytes:
        """The root key."""
        header = read_own_header(blob, NAME, MEMBERS)
        return disclose(blob, from_random_key(header, self._entry(create=False)), self._vault_id)

    def needs_rewrap(self, blob: bytes) -> bool:
        """Never: there is one derivation."""
        read_own_header(blob, NAME, MEMBERS)
        return False

    def _entry(self, *, create: bool) -> bytes:
        return _bounded(lambda: _fetch(self._vault_id, create=create, prompt=self._interactive), self._timeout)


def available(timeout: float = 2.0) -> bool:
    """Whether there is a keychain that is unlocked and answers within ``timeout`` seconds. Never prompts."""
    try:
        _bounded(lambda: _refuse_locked(_backend()), timeout)
    except KeyholeError:
        return False
    return True


def _fetch(vault_id: str, *, create: bool, prompt: bool) -> bytes:
    backend = _backend()
    if not prompt:
        _refuse_locked(backend)
    stored = backend.get_password(SERVICE, vault_id)
    if stored is None:
        if not create:
            raise Sealed(
                "the keychain holds no key for this vault",
                "open it as the user, and on the machine, that made it; or restore the keychain's entry",
            )
        backend.set_password(SERVICE, vault_id, base64.b64encode(os.urandom(KEY_SIZE)).decode("ascii"))
        # What counts is what will be found next time.
        stored = backend.get_password(SERVICE, vault_id)
    try:
        key = base64.b64decode(stored or "", validate=True)
    except (binascii.Error, ValueError):
        raise does_not_open() from None
    if len(key) != KEY_SIZE:
        raise does_not_open()
    return key


def _identity(backend: Any) -> tuple[str, str]:
    return type(backend).__module__, type(backend).__qualname__


def _backend() -> Any:
    """The backend of ``keyring`` to use. Imports it here: most commands never need it."""
    core = importlib.import_module("keyring.core")
    configured = core.load_env() or core.load_config()
    if configured is None or _identity(configured) == _CHAINER:
        return _best()
    if _identity(configured) not in _KNOWN:
        raise InvalidRequest(
            f"the keyring backend {'.'.join(_identity(configured))} is not the keychain of an operating system",
            "unset PYTHON_KEYRING_BACKEND and default-keyring in keyringrc.cfg, or use --seal passphrase",
        )
    return configured


def _best() -> Any:
    viable = []
    for module, name in _KNOWN:
        try:
            backend = getattr(importlib.import_module(module), name)
            viable.append((float(backend.priority), backend))
        except Exception:  # noqa: BLE001, S112  # each says in its own way that it is not for this system
            continue
    if not viable:
        raise Sealed("no keychain can be reached from here", _USE_ANOTHER)
    return max(viable, key=lambda pair: pair[0])[1]()


def _refuse_locked(backend: Any) -> None:
    """Secret Service prompts when a locked collection is read, so its state is asked for first."""
    if _identity(backend) not in _SECRET_SERVICE:
        return
    secretstorage = importlib.import_module("secretstorage")
    with closing(secretstorage.dbus_init()) as connection:
        chosen = getattr(backend, "preferred_collection", None)
        try:
            collection = secretstorage.Collection(connection, *([chosen] if chosen else []))
        except secretstorage.ItemNotFoundException:
            raise Sealed("the keychain has no default collection yet", _USE_ANOTHER) from None
        if collection.is_locked():
            raise Sealed("the keychain is locked", _USE_ANOTHER)


def _bounded(work: Callable[[], T], timeout: float) -> T:
    return bounded(work, timeout, _failed, _USE_ANOTHER, what="the keychain")


def _failed(error: Exception) -> Sealed:
    """Backends raise errors of D-Bus, GLib, COM: all mean the same."""
    what = "is locked" if type(error).__name__ == "KeyringLocked" else f"failed ({type(error).__name__})"
    return Sealed(f"the keychain {what}", _USE_ANOTHER)


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> KeychainSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase
    if rest:
        raise InvalidRequest("the seal keychain takes nothing after its name", "write --seal keychain")
    return KeychainSeal(vault_id, create=create, interactive=interactive)
