"""Shelf: who can open. A seal wraps the root key, so that the store can hold it and only some can get it out.

    seal = open_seal("passphrase", passphrase=Secret(b"correct horse battery"), vault_id=vault_id, create=True)
    blob = seal.wrap(root_key)                    # 32 bytes -> bytes that may lie in the store
    root_key = seal.unwrap(blob)
    if seal.needs_rewrap(blob):                   # written with older parameters: write a better one now
        blob = seal.wrap(root_key)

Promises of every member:

1. The blob is safe to publish: without what the seal holds, getting at the root key costs a search for a 256-bit key,
   or for the passphrase at the price of a named profile (``crypto.kdf``) a guess.
2. ``unwrap`` gives back the same key or fails: a wrong key, another vault, and any change to the blob are
   ``IntegrityError``. The blob says which seal made it and how, and carries no parameter that could be made weaker.
3. Nothing to open with (no passphrase, a locked keychain, a missing file) is ``Sealed``. The same seal opens as soon as
   the keychain is unlocked or the file is there.
4. No member writes key material to a file on its own, prompts on a terminal, or waits without limit.

Methods block, for 0.1 s and more with a passphrase: call them from a thread.
"""

from __future__ import annotations

import importlib
import re
from typing import Protocol, runtime_checkable

from keyhole.core.errors import InvalidRequest
from keyhole.core.value import Secret

MEMBERS = ("passphrase", "keychain", "keyfile", "age", "shares", "pkcs11", "awskms", "gcpkms", "azurekms", "transit")
KEPT_ELSEWHERE = ("pkcs11", "awskms", "gcpkms", "azurekms", "transit")
"""Members whose key somebody else keeps, who never gives it away."""
_QUORUM = re.compile(r"shares:([0-9]{1,3}):([0-9]{1,3})")


class Seal(Protocol):
    """The contract.

    Attributes:
        name: the member's name.
        unattended: true if it can unwrap without a person.
    """

    name: str
    unattended: bool

    def wrap(self, key: bytes) -> bytes:
        """The root key (32 bytes) as a self-describing blob. Raises ``InvalidRequest`` or ``Sealed``."""

    def unwrap(self, blob: bytes) -> bytes:
        """The root key of a blob. Raises ``Sealed``, ``IntegrityError``, ``InvalidRequest`` (not this seal's)."""

    def needs_rewrap(self, blob: bytes) -> bool:
        """Whether ``wrap`` would write something stronger. Raises ``IntegrityError`` for what is no blob."""


@runtime_checkable
class Renewing(Protocol):
    """A seal with a credential that ends unless it is renewed."""

    def keep_alive(self) -> None:
        """Renew it if it is time to; called now and then while a vault is open. Raises ``Sealed``."""


@runtime_checkable
class Dealing(Protocol):
    """A seal whose key is dealt out to people."""

    def deal(self) -> list[Secret]:
        """The shares of a new seal, as text. Raises ``Sealed`` for one that is not new."""


def open_seal(
    spec: str, *, passphrase: Secret | None, vault_id: str, create: bool = False, interactive: bool = False
) -> Seal:
    """A seal such as ``passphrase``, ``keyfile:/path`` or ``shares:5:3``, which reads nothing until it is used.

    Args:
        spec: name of the member, with what it needs after a colon.
        passphrase: what a person enters (see ``asks_for``); for ``shares`` the shares, with space between them; others
            ignore it.
        vault_id: the blob opens for this vault only; the keychain's entry is kept by it.
        create: this is a new vault, or a new seal for it: the passphrase is judged; an entry of the keychain, a key in
            a token, or one to be shared may be made.
        interactive: the keychain may ask its user to unlock it; never set by a server.

    Raises:
        InvalidRequest: the name is not on this shelf, or what follows it is wrong, or the passphrase is too weak.
    """
    name, _, rest = spec.partition(":")
    if name not in MEMBERS:
        raise InvalidRequest(f"there is no seal named {name!r}", f"use one of: {', '.join(MEMBERS)}")
    member = importlib.import_module(f"keyhole.seals.{name}")
    seal: Seal = member.open_seal(
        rest, passphrase=passphrase, vault_id=vault_id, create=create, interactive=interactive
    )
    return seal


def file_of(spec: str) -> str:
    """The path of the file that opens a seal of this machine's own: of ``keyfile`` and ``age``; empty for others."""
    kind, _, rest = spec.partition(":")
    return rest if kind == "keyfile" else rest.partition("?")[0] if kind == "age" else ""


def quorum(spec: str) -> tuple[int, int]:
    """How many shares a seal has, and how many of them open it: 5 and 3 of ``shares:5:3``; 1 and 1 without shares.

    Raises:
        InvalidRequest: it is a seal of shares, and says this wrongly.
    """
    if spec.partition(":")[0] != "shares":
        return 1, 1
    found = _QUORUM.fullmatch(spec)
    if found is None:
        raise InvalidRequest("the seal shares needs two numbers", "write --seal shares:5:3, of 5 shares any 3 open")
    shares, threshold = int(found[1]), int(found[2])
    importlib.import_module("keyhole.crypto.shamir").check_quorum(shares, threshold)
    return shares, threshold


def asks_for(spec: str) -> str:
    """What a person has to enter for a seal, as a question names it: ``Passphrase of the vault``; empty for nothing."""
    kind = spec.partition(":")[0]
    if kind == "pkcs11" and "pin-source=" not in spec:
        return "PIN of the token"
    if kind == "age" and "?" in spec:
        return "Passphrase of the age identity"
    return "Passphrase of the vault" if kind == "passphrase" else ""


def default_seal() -> str:
    """What a new local vault gets: ``keychain`` if one is unlocked and answers in two seconds, else ``passphrase``."""
    keychain = importlib.import_module("keyhole.seals.keychain")
    return "keychain" if keychain.available() else "passphrase"
