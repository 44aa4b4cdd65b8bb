"""A named key as it is stored, and the rules of its versions.

``p/NAME`` holds the settings, what is public of each version, and the material of the latest one; ``v/N/NAME`` the
material of an older version. Every change is made from one read of ``p/NAME`` and names its revision, so that two
rotations never make the same version.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.crypto import asymmetric
from keyhole.crypto.message import CIPHERS
from keyhole.engines import Context, Writing
from keyhole.engines.transit.fields import decode, encode, split

TYPES = (*CIPHERS, *asymmetric.KINDS, "hmac")
MAX_VERSIONS = 1000
_HMAC_SIZE = 32
_HMAC_SIZES = (32, 512)
_NAME = re.compile(r"\w(?:[\w.-]{0,126}\w)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Material:
    """One version's secret bytes.

    Attributes:
        key: of the cipher, the private key in PKCS #8, or the key of an HMAC.
        hmac: key of ``hmac/``, for every type.
    """

    key: bytes = field(repr=False)
    hmac: bytes = field(repr=False)

    def as_data(self) -> dict[str, str]:
        """As it is stored."""
        return {"key": encode(self.key), "hmac": encode(self.hmac)}

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> Material:
        """As it was stored."""
        return cls(decode(data["key"]), decode(data["hmac"]))


@dataclass(slots=True)
class Key:
    """Settings and versions of a key.

    Attributes:
        imported: it was made elsewhere.
        rotatable: versions may be made here.
        auto_rotate: seconds after which the latest version is followed by another one; 0 for never.
        versions: by number as text, each with ``created`` (seconds since the epoch) and ``public`` (text).
        material: of the latest version.
        revision: of the entry; what a write must expect.
    """

    name: str
    type: str
    derived: bool = False
    convergent: bool = False
    exportable: bool = False
    plaintext_backup: bool = False
    deletion_allowed: bool = False
    imported: bool = False
    rotatable: bool = True
    min_decryption: int = 1
    min_encryption: int = 0
    min_available: int = 0
    auto_rotate: int = 0
    size: int = _HMAC_SIZE
    latest: int = 0
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    material: dict[str, str] = field(default_factory=dict, repr=False)
    revision: int = 0

    @property
    def encrypts(self) -> bool:
        """Can it encrypt and decrypt?"""
        return self.type in CIPHERS or self.type in asymmetric.RSA_BITS

    @property
    def signs(self) -> bool:
        """Can it sign?"""
        return self.type in asymmetric.KINDS

    @property
    def slow(self) -> bool:
        """Is one operation worth a thread?"""
        return self.type in asymmetric.RSA_BITS or self.type in asymmetric.CURVES

    @property
    def next_rotation(self) -> float | None:
        """When it is due for another version, in seconds since the epoch."""
        if not self.auto_rotate:
            return None
        return float(self.versions[str(self.latest)]["created"]) + self.auto_rotate

    @property
    def full(self) -> bool:
        """Has it as many versions as may be?"""
        return self.latest - max(self.min_available, 1) + 1 >= MAX_VERSIONS

    def encode(self) -> bytes:
        """As it is stored; its name is its path."""
        data = asdict(self)
        del data["revision"], data["name"]
        return json.dumps(data).encode()

    def writing_version(self, asked: int) -> int:
        """The version to encrypt or sign with; ``asked`` is 0 for the latest."""
        version = asked or self.latest
        if version > self.latest:
            raise InvalidRequest("requested version for encryption is higher than the latest key version")
        if version < max(self.min_encryption, self.min_available, self.min_decryption):
            raise InvalidRequest("requested version for encryption is less than the minimum encryption key version")
        return version

    def check_reading(self, version: int, what: str) -> None:
        """Refuse a version that the key does not have, or does not read any more."""
        if version > self.latest:
            raise InvalidRequest(f"invalid {what}: version is too new")
        if version < max(self.min_decryption, self.min_available, 1):
            raise InvalidRequest("ciphertext or signature version is disallowed by policy (too old)")


def can_derive(kind: str) -> bool:
    """Can keys of this type be derived by context?"""
    return kind in CIPHERS or kind == "ed25519"


def parse_key_name(name: str) -> str:
    """The name of a new key. Raises ``InvalidRequest``."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest("a key's name has letters, digits, _, and inside also . and -", "at most 128 of them")
    return name


def generate(kind: str, size: int) -> Material:
    """Random material of a type; RSA takes up to seconds."""
    own = os.urandom(_HMAC_SIZE)
    if kind in CIPHERS:
        return Material(os.urandom(CIPHERS[kind][0]), own)
    if kind == "hmac":
        key = os.urandom(size)
        return Material(key, key)
    return Material(asymmetric.generate(kind), own)


def check_material(kind: str, material: Material) -> None:
    """Raises ``InvalidRequest`` for material that is not of this type."""
    if kind in CIPHERS:
        fits = len(material.key) == CIPHERS[kind][0] and len(material.hmac) == _HMAC_SIZE
    elif kind == "hmac":
        fits = _HMAC_SIZES[0] <= len(material.key) <= _HMAC_SIZES[1] and material.hmac == material.key
    else:
        asymmetric.check(kind, material.key)
        fits = len(material.hmac) == _HMAC_SIZE
    if not fits:
        raise InvalidRequest(f"the key is not one of the type {kind}")


def describe_version(kind: str, material: Material, now: float) -> dict[str, Any]:
    """What is public of a version."""
    public = asymmetric.public_text(material.key) if kind in asymmetric.KINDS else ""
    return {"created": now, "public": public}


async def find(context: Context, name: str) -> Key | None:
    """The key with this name, if there is one."""
    item = await context.storage.get_one(f"p/{name}")
    if item.data is None:
        return None
    return Key(name=name, revision=item.revision, **json.loads(item.data))


async def is_there(context: Context, name: str) -> bool:
    """Is there a key with this name?"""
    return (await context.storage.get_one(f"p/{name}")).data is not None


async def load(context: Context, name: str, missing: str = "encryption key not found") -> Key:
    """The key with this name. Raises ``InvalidRequest`` in these words."""
    key = await find(context, name)
    if key is None:
        raise InvalidRequest(missing, "make it first: POST keys/NAME")
    return key


async def material(context: Context, key: Key, numbers: Sequence[int]) -> dict[int, Material]:
    """The secret bytes of these versions, which the key has."""
    found = {}
    older = sorted({number for number in numbers if number != key.latest})
    items = await context.storage.get(*(f"v/{number}/{key.name}" for number in older)) if older else []
    for number, item in zip(older, items, strict=True):
        if item.data is not None:
            found[number] = Material.from_data(json.loads(item.data))
    if key.latest in numbers:
        found[key.latest] = Material.from_data(key.material)
    return found


async def save_new(context: Context, key: Key, added: Material) -> None:
    """Store the key with one more version; the one that was the latest is archived."""
    if key.full:
        raise InvalidRequest(f"the key has {MAX_VERSIONS:,} versions", "trim those that nothing needs any more")
    writes: list[Writing] = []
    if key.latest:
        path = f"v/{key.latest}/{key.name}"
        item = await context.storage.get_one(path)
        writes.append((path, json.dumps(key.material).encode(), item.revision))
    key.latest += 1
    key.material = added.as_data()
    key.versions[str(key.latest)] = describe_version(key.type, added, context.now)
    writes.append((f"p/{key.name}", key.encode(), key.revision, key.next_rotation))
    await context.storage.change(writes)


async def save(
    context: Context, key: Key, deletes: Sequence[tuple[str, int]] = (), *, due: float | None = None
) -> None:
    """Store settings that were changed; ``due`` puts its rotation off until then."""
    await context.storage.change([(f"p/{key.name}", key.encode(), key.revision, due or key.next_rotation)], deletes)


async def archived(context: Context, name: str, numbers: Sequence[int]) -> list[tuple[str, int]]:
    """The entries of older versions, to be deleted."""
    paths = [f"v/{number}/{name}" for number in numbers]
    items = await context.storage.get(*paths) if paths else []
    return [(path, item.revision) for path, item in zip(paths, items, strict=True) if item.data is not None]


def readable(key: Key, texts: Sequence[str], what: str) -> list[int]:
    """The versions that these ciphertexts or signatures were made with, those that the key has."""
    versions = []
    for text in texts:
        try:
            found = split(text, what)
            key.check_reading(found.version, what)
        except InvalidRequest:
            continue  # said of the one item that has it
        versions.append(found.version)
    return versions
