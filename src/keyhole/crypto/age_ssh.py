"""SSH keys that open files of age: ``ssh-ed25519`` and ``ssh-rsa``, as ssh-keygen writes them."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import ssh
from keyhole.crypto.low_order import is_sound_ed25519

KINDS = (ssh.ED25519, ssh.RSA)
_MAX_BITS = 16384
Ask = Callable[[str], Secret | None]


@dataclass(frozen=True, slots=True)
class SshKey:
    """A private key, opened.

    Attributes:
        public: type and base64, without a comment.
        seed: of an Ed25519 key, 32 bytes; empty for RSA.
        text: in OpenSSH's form and without a passphrase.
    """

    public: str
    seed: bytes = field(repr=False)
    text: str = field(repr=False)


def read_private(text: str, ask: Ask) -> SshKey:
    """A private key in PEM of any kind.

    Args:
        text: what the file holds.
        ask: for the passphrase of a key that has one; ``None`` where nobody can be asked.

    Raises:
        InvalidRequest: it is no such key, or of a kind that does not open files.
        Sealed: nobody gives its passphrase, or it is another one.
    """
    data = text.strip().encode() + b"\n"
    key = _load(data, None)
    if key is None:
        entered = ask("Passphrase of the SSH key")
        if entered is None:
            raise Sealed("the SSH key has a passphrase", "enter it on a terminal, or name it with --passphrase-file")
        key = _load(data, entered.reveal())
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise InvalidRequest("this kind of SSH key opens no files", f"use {' or '.join(KINDS)}")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    seed = key.private_bytes_raw() if isinstance(key, Ed25519PrivateKey) else b""
    return SshKey(read_public(public.decode()), seed, key.private_bytes(*form).decode())


def read_public(text: str) -> str:
    """The line of a public key without its comment. Raises ``InvalidRequest``."""
    try:
        key = ssh.read_public(text)
    except KeyholeError:
        key = None
    if key is None or key.kind not in KINDS or key.bits > _MAX_BITS:
        raise InvalidRequest(
            "this is no SSH key that a file can be sealed for", "take the line of a .pub file: ssh-ed25519 or ssh-rsa"
        )
    if key.kind == ssh.ED25519 and not is_sound_ed25519(base64.b64decode(key.text.split()[1])[-32:]):
        raise InvalidRequest("everybody could open what is sealed for this key", "ask its holder for another one")
    return key.text


def _load(data: bytes, passphrase: bytes | None) -> object | None:
    """The key; ``None`` for one with a passphrase, where none is given."""
    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        return load(data, passphrase)
    except TypeError:
        return None  # it has one
    except UnsupportedAlgorithm:
        if openssh and importlib.util.find_spec("bcrypt") is None and b"bcrypt" in _decoded(data):
            raise InvalidRequest(
                "opening an OpenSSH key with a passphrase needs bcrypt", "pip install 'keyhole[ssh]'"
            ) from None
        raise _no_key() from None
    except ValueError:
        if passphrase is not None:
            raise Sealed("the passphrase does not open the SSH key", "enter the one that ssh asks for") from None
        raise _no_key() from None


def _decoded(data: bytes) -> bytes:
    import binascii  # noqa: PLC0415 - for the one error above

    try:
        return base64.b64decode(b"".join(data.splitlines()[1:-1]))
    except binascii.Error:
        return b""


def _no_key() -> InvalidRequest:
    return InvalidRequest("this is no private SSH key", "name the file that ssh-keygen made, without .pub")
