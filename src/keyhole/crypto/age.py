"""Files for several readers: age (age-encryption.org/v1), by the library rage.

Safe here: a file is opened in memory or not at all, and nothing of it is given out before its end was authenticated.
age has no associated data and no sender: whoever knows the recipients can make such a file. That a file stands in its
place and comes from a member is what the signed documents beside it say (``repo.sidecar``).

A recipient is an X25519 key, an SSH key, or a key that a plugin of age holds: a program ``age-plugin-NAME`` of this
machine, which is started to seal for it and to open. Who holds an X25519 or Ed25519 key in hand has a signing key with
it; an RSA key and a plugin give none, so their holders read and sign nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

import pyrage

from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, Sealed
from keyhole.crypto import age_plugin
from keyhole.crypto.age_header import MAX_FILE, MAX_STANZAS, damaged, read_header
from keyhole.crypto.age_plugin import NOBODY, Prompts
from keyhole.crypto.kdf import hkdf
from keyhole.crypto.low_order import has_low_order
from keyhole.crypto.signing import SigningKey

PRIVATE = "AGE-SECRET-KEY-1"
PLUGIN = "AGE-PLUGIN-"
_BEGIN = "-----BEGIN"
_SIGNING = b"keyhole repo signing v1"
_SIGNING_SSH = b"keyhole repo signing by ssh-ed25519 v1"
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}")
_BECH32, _CHECKSUM = "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 6  # BIP 173
_SSH = ("ssh-ed25519 ", "ssh-rsa ")
_SSH_STANZAS = frozenset({b"ssh-ed25519", b"ssh-rsa"})


class Kind(StrEnum):
    """What holds the private key of a recipient."""

    X25519 = "X25519"
    SSH_ED25519 = "ssh-ed25519"
    SSH_RSA = "ssh-rsa"
    PLUGIN = "plugin"

    @property
    def signs(self) -> bool:
        """Whether its holder has a signing key with it."""
        return self in {Kind.X25519, Kind.SSH_ED25519}


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who can open a file.

    Attributes:
        text: ``age1…``, ``age1NAME1…`` of a plugin, or a public SSH key without its comment.
    """

    text: str
    _key: Any = field(repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        """What holds its private key."""
        if self.text.startswith(_SSH):
            return Kind(self.text.partition(" ")[0])
        return Kind.X25519 if _RECIPIENT.fullmatch(self.text) else Kind.PLUGIN

    @property
    def native(self) -> bool:
        """Whether it is an X25519 recipient, which every reader of the format knows."""
        return self.kind is Kind.X25519


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key that opens files, and the signing key that derives from it.

    Attributes:
        recipient: who is meant by it.
    """

    recipient: Recipient
    _signing: SigningKey | None = field(repr=False, compare=False)
    _key: Any = field(repr=False, compare=False)
    _text: str = field(default="", repr=False, compare=False)

    @property
    def signs(self) -> bool:
        """Whether it has a signing key."""
        return self._signing is not None

    @property
    def signing(self) -> SigningKey:
        """Ed25519, derived by HKDF-SHA-256 from the private key, so that there is one key to keep.

        Raises:
            InvalidRequest: nothing derives from an RSA key, or from one that a plugin holds.
        """
        if self._signing is None:
            raise cannot_sign(self.recipient.kind)
        return self._signing

    def to_text(self) -> str:
        """The private key in clear, in the form of age: the caller writes it where only its owner reads."""
        return self._text

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised but by to_text")


def cannot_sign(kind: Kind) -> InvalidRequest:
    """What is said where somebody has to sign whose key gives no signing key."""
    what = "an ssh-rsa key" if kind is Kind.SSH_RSA else "a key that a plugin holds"
    return InvalidRequest(
        f"{what} cannot sign, so who has it is a reader", "use an age key or an ssh-ed25519 key to change a vault"
    )


def generate() -> Identity:
    """A new X25519 identity."""
    return parse_identity(str(pyrage.x25519.Identity.generate()))


def parse_identity(text: str) -> Identity:
    """An identity from ``AGE-SECRET-KEY-1…`` or from a private SSH key without a passphrase.

    Raises:
        InvalidRequest: it is neither.
        Sealed: the SSH key has a passphrase.
    """
    text = text.strip()
    if text.startswith(_BEGIN):
        return _ssh_identity(text, NOBODY)
    try:
        key = pyrage.x25519.Identity.from_str(text if _IDENTITY.fullmatch(text) else "")
    except (ValueError, TypeError, pyrage.IdentityError, pyrage.RecipientError):
        raise InvalidRequest(
            "this is no private key of age", "it begins with AGE-SECRET-KEY-1, and has 74 characters"
        ) from None
    signing = SigningKey.from_bytes(hkdf(text.encode(), _SIGNING))
    return Identity(parse_recipient(str(key.to_public())), signing, key, text)


def find_identity(text: str, prompts: Prompts = NOBODY) -> Identity:
    """The first identity in the text of a key file, whose other lines are comments.

    Args:
        text: of the file; an age key, an SSH key, or the identity of a plugin.
        prompts: asks for the passphrase of an SSH key, and speaks for a plugin.

    Raises:
        InvalidRequest: there is none.
        Sealed: the SSH key has a passphrase, and nobody gives it.
    """
    if text.lstrip().startswith(_BEGIN):
        return _ssh_identity(text, prompts)
    for line in text.splitlines():
        if line.startswith(PLUGIN):
            return _plugin_identity(line.strip(), text, prompts)
        if line.startswith(PRIVATE):
            return parse_identity(line)
    return parse_identity(text)


def parse_recipient(text: str) -> Recipient:
    """A recipient from ``age1…``, ``age1NAME1…`` or a public SSH key (``ssh-ed25519``, ``ssh-rsa``).

    Raises:
        InvalidRequest: it is none of these.
    """
    text = text.strip()
    try:
        if text.startswith(_SSH) and "\n" not in text:
            from keyhole.crypto import age_ssh  # noqa: PLC0415 - SSH keys are rare, and slow to import

            bare = age_ssh.read_public(text)
            return Recipient(bare, pyrage.ssh.Recipient.from_str(bare))
        if age_plugin.is_recipient(text):
            return Recipient(text, age_plugin.parse_recipient(text))
        found = Recipient(text, pyrage.x25519.Recipient.from_str(text if _RECIPIENT.fullmatch(text) else ""))
    except (ValueError, pyrage.RecipientError):
        raise InvalidRequest(
            "this is no public key of age",
            "it begins with age1 and has 62 characters, or is that of a plugin (age1NAME1…) or of SSH in one line",
        ) from None
    if has_low_order(_point(text)):
        raise InvalidRequest("everybody could open what is sealed for this key", "ask its holder for another one")
    return found


def _point(text: str) -> bytes:
    """The 32 bytes of a recipient whose checksum was seen to be right."""
    bits = 0
    for character in text[len("age1") : -_CHECKSUM]:
        bits = bits << 5 | _BECH32.index(character)
    return (bits >> 4).to_bytes(32, "big")


def encrypt(plaintext: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Seal for these recipients, in the order given, as a binary age file.

    Raises:
        InvalidRequest: there is no recipient, or there are too many, or it is too long.
        Sealed: the program of a plugin is not there, or failed.
    """
    if not 0 < len(recipients) <= MAX_STANZAS:
        raise InvalidRequest(f"a file has 1 to {MAX_STANZAS} recipients", "grant it to fewer")
    if len(plaintext) > MAX_FILE:
        raise InvalidRequest(f"a secret has at most {MAX_FILE} bytes", "keep large files elsewhere, and their key here")
    keys = [
        age_plugin.sealing(recipient._key) if recipient.kind is Kind.PLUGIN else recipient._key  # noqa: SLF001 - of this file
        for recipient in recipients
    ]
    try:
        return bytes(pyrage.encrypt(plaintext, keys))
    except pyrage.EncryptError:
        raise Sealed(
            "nothing was sealed: a plugin of age refused or failed", "see that its program works: age -r RECIPIENT"
        ) from None


def decrypt(ciphertext: bytes, identities: Sequence[Identity]) -> bytes:
    """What a binary age file has, for one of these identities.

    Raises:
        NotFound: it is not for any of them.
        IntegrityError: it is no such file, or was changed.
        Sealed: the program of a plugin is not there, or failed.
    """
    read_header(ciphertext)
    plugin = any(identity.recipient.kind is Kind.PLUGIN for identity in identities)
    try:
        keys = [
            identity._key.opening() if isinstance(identity._key, age_plugin.Holder) else identity._key  # noqa: SLF001
            for identity in identities
        ]
        return bytes(pyrage.decrypt(ciphertext, keys))
    except pyrage.DecryptError as error:
        raise _refused(str(error), plugin=plugin) from None


def _refused(error: str, *, plugin: bool) -> KeyholeError:
    if "matching keys" in error:
        return NotFound("the file is not for this key", "ask an owner to grant it, or use another key")
    if plugin:
        return Sealed("the plugin of the key does not open the file", "see that its device is there, and try again")
    return damaged()


def stanza_count(ciphertext: bytes) -> int:
    """How many recipients a file says that it has. Raises ``IntegrityError`` when it is none."""
    return require_file(ciphertext)


def unlisted(ciphertext: bytes, recipients: Sequence[Recipient]) -> str:
    """In which way a file is not sealed for exactly these recipients, as far as it shows; empty where it is.

    X25519 shows how many there are, SSH which keys they are (SHA-256, four bytes). What plugins seal is not judged, nor
    the stanza of no meaning that a writer may add.

    Raises:
        IntegrityError: it is no file of age.
    """
    stanzas = read_header(ciphertext)
    found = sum(stanza.kind == Kind.X25519.encode() for stanza in stanzas)
    wanted = sum(recipient.native for recipient in recipients)
    if found != wanted:
        return f"it is sealed for {found} keys of X25519, and {wanted} should open it"
    tags = Counter(
        (recipient.kind, hashlib.sha256(base64.b64decode(recipient.text.split()[1])).digest()[:4])
        for recipient in recipients
        if recipient.text.startswith(_SSH)
    )
    shown = Counter(
        (Kind(stanza.kind.decode()), base64.b64decode(stanza.arguments[0] + b"=="))
        for stanza in stanzas
        if stanza.kind in _SSH_STANZAS
    )
    return "" if shown == tags else "it is not sealed for exactly the SSH keys that should open it"


def require_file(ciphertext: bytes) -> int:
    """See that this is a binary age file of version 1 for recipients, with a bounded, well-formed header.

    Returns:
        How many stanzas it has.

    Raises:
        IntegrityError: it is none.
    """
    return len(read_header(ciphertext))


def _ssh_identity(text: str, prompts: Prompts) -> Identity:
    from keyhole.crypto import age_ssh  # noqa: PLC0415 - as above

    key = age_ssh.read_private(text, prompts.passphrase)
    signing = SigningKey.from_bytes(hkdf(key.seed, _SIGNING_SSH)) if key.seed else None
    return Identity(parse_recipient(key.public), signing, pyrage.ssh.Identity.from_buffer(key.text.encode()), key.text)


def _plugin_identity(line: str, text: str, prompts: Prompts) -> Identity:
    """The identity of a plugin, and the recipient that a comment names: only its program could tell it otherwise."""
    found = re.search(r"^#.*\b(?:recipient|public key):\s*(age1\S+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    if found is None:
        raise InvalidRequest(
            "the file of a plugin's key does not say its recipient", "write it above: # recipient: age1NAME1…"
        )
    holder = age_plugin.Holder(line, prompts)
    recipient = parse_recipient(found[1])
    return Identity(recipient, None, holder, f"# recipient: {recipient.text}\n{line}")
