"""Age files that a passphrase opens: what ``age -p`` writes, and reads again as an identity file.

Written here rather than by the library, which measures the machine and then takes up to half a gigabyte; the work is
that of the format's own tool. The library reads them, after the work was seen to be bounded.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re

import pyrage
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keyhole.core.errors import InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.age_header import HEAD, damaged, require_passphrase_file
from keyhole.crypto.kdf import hkdf

WORK = 18
"""log2 of N, as age has it: 256 MiB and about a second for each guess."""
MIN_LENGTH = 8  # characters of a new passphrase: NIST SP 800-63B, section 5.1.1.2
_MAX = 64 * 1024  # bytes: one chunk of a file
_ARMOUR = re.compile(
    rb"-----BEGIN AGE ENCRYPTED FILE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END AGE ENCRYPTED FILE-----\s*"
)
_LABEL = b"age-encryption.org/v1/scrypt"


def seal_with(passphrase: Secret, plaintext: bytes) -> bytes:
    """A binary age file that the passphrase opens. Takes a second, and 256 MiB.

    Raises:
        InvalidRequest: the passphrase is short, or no text; or there is too much to be sealed.
    """
    if len(_text(passphrase)) < MIN_LENGTH:
        raise InvalidRequest(
            f"the passphrase is shorter than {MIN_LENGTH} characters", "choose several words that nobody can guess"
        )
    if len(plaintext) > _MAX:
        raise InvalidRequest("this is too long for a key", "name the file of one key")
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = Scrypt(_LABEL + salt, 32, 2**WORK, 8, 1).derive(_text(passphrase).encode())
    body = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    header = HEAD + b"-> scrypt %s %d\n%s\n---" % (_base64(salt), WORK, _base64(body))
    mac = hmac.digest(hkdf(file_key, b"header"), header, "sha256")
    payload = ChaCha20Poly1305(hkdf(file_key, b"payload", salt=nonce))
    return header + b" " + _base64(mac) + b"\n" + nonce + payload.encrypt(bytes(11) + b"\x01", plaintext, None)


def is_passphrase_file(data: bytes) -> bool:
    """Whether these are the bytes of an age file, binary or in armour."""
    return data.startswith((HEAD, b"-----BEGIN AGE ENCRYPTED FILE-----"))


def open_with(passphrase: Secret, data: bytes) -> bytes:
    """What such a file has, binary or in armour.

    Raises:
        Sealed: it is another passphrase.
        IntegrityError: it is no such file, was changed, or asks for too much work.
    """
    if armoured := _ARMOUR.fullmatch(data):
        try:
            data = base64.b64decode(armoured[1])
        except binascii.Error:
            raise damaged() from None
    require_passphrase_file(data)
    try:
        return bytes(pyrage.passphrase.decrypt(data, _text(passphrase)))
    except pyrage.DecryptError as error:
        if "work" in str(error).lower():  # what it measured on this machine counts there
            raise damaged() from None
        raise Sealed("the passphrase does not open the key", "enter the one that the key was put under") from None


def _text(passphrase: Secret) -> str:
    try:
        return passphrase.reveal().decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the passphrase is not text in UTF-8", "other tools of age take text only") from None


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")
