"""Keys from passphrases (named, sourced profiles) and keys from keys (HKDF, RFC 5869).

Safe here: stored bytes can only name a profile, never carry parameters, so whoever can write to a store cannot make a
guess cheaper than the weakest profile that is accepted. A passphrase is stretched once, at unseal.
"""

from types import MappingProxyType
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyhole.core.errors import IntegrityError, InvalidRequest

KEY_SIZE = 32
SALT_SIZE = 16
_HKDF_MAX = 255 * 32


class Profile(NamedTuple):
    """The parameters of one way to stretch a passphrase.

    Attributes:
        name: what stored bytes call it. A name never changes its parameters; better ones get a new name.
        algorithm: ``argon2id`` (RFC 9106, version 0x13) or ``pbkdf2-sha256`` (RFC 8018).
        memory_kib: memory a guess needs, in KiB; 0 for PBKDF2.
        iterations: passes over the memory, or rounds of PBKDF2.
        lanes: parallel lanes; 1 for PBKDF2.
        source: who recommends these numbers.
        strength: order of the profiles; below ``FLOOR`` a profile is refused.
    """

    name: str
    algorithm: Literal["argon2id", "pbkdf2-sha256"]
    memory_kib: int
    iterations: int
    lanes: int
    source: str
    strength: int


DEFAULT = Profile(
    "argon2id-default", "argon2id", 64 * 1024, 3, 4, "RFC 9106, section 4: second recommended option", strength=20
)
FLOOR = Profile(
    "pbkdf2-sha256-600k", "pbkdf2-sha256", 0, 600_000, 1, "OWASP Password Storage Cheat Sheet, 2023", strength=10
)
TESTING = Profile("argon2id-only-for-testing", "argon2id", 8, 1, 1, "ONLY FOR TESTING: no protection", strength=0)

PROFILES = MappingProxyType({profile.name: profile for profile in (DEFAULT, FLOOR, TESTING)})


def stored_profile(name: str, *, testing: bool = False) -> Profile:
    """The profile that stored bytes name.

    Args:
        name: as stored.
        testing: accept profiles below the floor. Never true outside of tests.

    Raises:
        IntegrityError: it is unknown, or weaker than anything that Keyhole writes.
    """
    profile = PROFILES.get(name)
    if profile is None or (profile.strength < FLOOR.strength and not testing):
        raise IntegrityError(
            "the stored key derivation is unknown to this version or weaker than anything that Keyhole accepts",
            "do not enter the passphrase again before you know who changed the store; restore a backup",
        )
    return profile


def derive(profile: Profile, passphrase: bytes, salt: bytes, *, testing: bool = False) -> bytes:
    """A 32-byte key from a passphrase. Takes as long and as much memory as the profile says: call it from a thread.

    Args:
        profile: one of ``PROFILES``.
        passphrase: not empty.
        salt: at least 16 random bytes, stored beside what the key opens.
        testing: accept a profile below the floor. Never true outside of tests.

    Raises:
        InvalidRequest: empty passphrase, short salt, or a profile below the floor.
    """
    if PROFILES.get(profile.name) != profile or (profile.strength < FLOOR.strength and not testing):
        raise InvalidRequest("this key derivation is weaker than the floor", f"use {DEFAULT.name}")
    if not passphrase:
        raise InvalidRequest("an empty passphrase protects nothing", "choose a passphrase")
    if len(salt) < SALT_SIZE:
        raise InvalidRequest(f"a salt has at least {SALT_SIZE} bytes")
    if profile.algorithm == "pbkdf2-sha256":
        return pbkdf2_sha256(passphrase, salt, profile.iterations)
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415  # few seals have a passphrase

    stretch = Argon2id(
        salt=salt,
        length=KEY_SIZE,
        iterations=profile.iterations,
        lanes=profile.lanes,
        memory_cost=profile.memory_kib,
    )
    return stretch.derive(passphrase)


def pbkdf2_sha256(passphrase: bytes, salt: bytes, iterations: int, length: int = KEY_SIZE) -> bytes:
    """PBKDF2-HMAC-SHA256 (RFC 8018) with foreign parameters, for reading what others wrote; ``derive`` has a floor.

    Raises:
        InvalidRequest: iterations or length below 1.
    """
    if iterations < 1 or length < 1:
        raise InvalidRequest("PBKDF2 needs at least one iteration and one byte of output")
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC  # noqa: PLC0415  # the same

    return PBKDF2HMAC(algorithm=SHA256(), length=length, salt=salt, iterations=iterations).derive(passphrase)


def hkdf(key: bytes, info: bytes, length: int = KEY_SIZE, salt: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869): a key for one purpose from a key with full entropy; never from a passphrase.

    Args:
        key: input keying material.
        info: names the purpose; another purpose gives an unrelated key.
        length: bytes wanted, 1 to 8160.
        salt: optional, may be public.

    Raises:
        InvalidRequest: the length is out of range.
    """
    if not 1 <= length <= _HKDF_MAX:
        raise InvalidRequest(f"HKDF-SHA256 gives 1 to {_HKDF_MAX} bytes")
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)
