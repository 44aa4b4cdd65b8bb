"""The keys of an open vault: root key, keyrings of the orgs, signing key, and the count of what each key has sealed.

The root key is never stored in clear: the seal wraps it. It wraps one keyring per org (entry ``sys/keyring/ORG``) and
the journal's signing key (entry ``sys/signing``). The entry ``sys/vault`` is in clear: format, vault id, seal and the
wrapped root key.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import Conflict, IntegrityError, NotFound, StoreUnavailable
from keyhole.crypto.aead import AeadKey
from keyhole.crypto.kdf import hkdf
from keyhole.crypto.keyring import Keyring
from keyhole.crypto.signing import SigningKey
from keyhole.stores import Batch, Entry, Put, Store

FORMAT = 1
SYSTEM = "sys"
HEADER = "sys/vault"
_SIGNING = "sys/signing"
_BLOCK = 1024
MAX_USES = 2**32  # NIST SP 800-38D, 8.3: random 96-bit nonces, per key


@dataclass(frozen=True, slots=True)
class Header:
    """What lies in clear at the entrance of a store.

    Attributes:
        vault_id: random, names the vault to the keychain.
        seal: specification of the seal, such as ``passphrase`` or ``keyfile:/path``.
        root: the root key, wrapped by the seal.
        revision: of the entry, for the next write.
    """

    vault_id: str
    seal: str
    root: bytes
    revision: int

    def put(self) -> Put:
        """The write that stores this header as the next revision."""
        data = {"format": FORMAT, "id": self.vault_id, "seal": self.seal, "root": base64.b64encode(self.root).decode()}
        return Put(HEADER, json.dumps(data).encode(), self.revision)


async def read_header(store: Store) -> Header | None:
    """The header of a store, or ``None`` where no vault was made yet.

    Raises:
        IntegrityError: it is damaged.
        StoreUnavailable: it was written by a newer version.
    """
    [entry] = await store.get([HEADER])
    if entry.value is None:
        return None
    try:
        data: dict[str, Any] = json.loads(entry.value)
        version = int(data["format"])
        header = Header(data["id"], data["seal"], base64.b64decode(data["root"], validate=True), entry.revision)
    except (ValueError, KeyError, TypeError):
        raise IntegrityError("the vault's header is damaged", "restore the store from a backup") from None
    if version > FORMAT:
        raise StoreUnavailable(f"the vault has format {version}, this program knows {FORMAT}", "upgrade keyhole")
    return header


class Keys:
    """All keys of an unsealed vault.

    Args:
        store: where the wrapped keys lie.
        root: the root key in clear, 32 bytes.
        max_uses: values that one term of a keyring may seal.
    """

    def __init__(self, store: Store, root: bytes, *, max_uses: int = MAX_USES) -> None:
        self._store = store
        self._wrap = AeadKey(hkdf(root, b"keyhole keyring wrap 1"))
        self._rings: dict[str, tuple[Keyring, int]] = {}
        self._left: dict[str, int] = {}
        self._max_uses = max_uses
        self.signing: SigningKey

    async def create(self, header: Header) -> None:
        """Write the header, the system keyring and the signing key of a new vault, all or nothing."""
        self.signing = SigningKey.generate()
        ring = Keyring.generate()
        sealed = self._wrap.seal(self.signing.to_bytes(), _aad(_SIGNING, 1))
        await self._store.commit(
            Batch(puts=[header.put(), Put(_SIGNING, sealed, 0), self._ring_put(SYSTEM, ring, expected=0)])
        )
        self._rings[SYSTEM] = (ring, 1)

    async def load(self) -> None:
        """Open the signing key and the system keyring. Raises ``IntegrityError`` when the root key is not theirs."""
        [entry] = await self._store.get([_SIGNING])
        self.signing = SigningKey.from_bytes(self._open(_SIGNING, entry))
        await self.load_ring(SYSTEM)

    async def load_ring(self, org_id: str) -> Keyring:
        """Read the keyring of an org from the store and keep it."""
        name = ring_key(org_id)
        [entry] = await self._store.get([name])
        if entry.value is None:
            raise NotFound("there is no such org", "keyhole org list")
        ring = Keyring.from_bytes(self._open(name, entry))
        self._rings[org_id] = (ring, entry.revision)
        return ring

    def ring(self, org_id: str) -> Keyring:
        """The keyring of an org that was loaded before."""
        return self._rings[org_id][0]

    @property
    def token_key(self) -> bytes:
        """Key of the hashes under which tokens are stored; a new root key leaves it as it is."""
        return self.ring(SYSTEM).keyed_hash("token", b"key of the vault")

    def new_ring(self, org_id: str) -> Put:
        """Make the keyring of a new org; it exists when the returned put is committed."""
        ring = Keyring.generate()
        self._rings[org_id] = (ring, 1)
        return self._ring_put(org_id, ring, expected=0)

    async def rotate(self, org_id: str, announce: Put) -> int:
        """Seal new values of an org under a new term from now on; returns the term. Old terms stay readable.

        Args:
            org_id: whose keyring.
            announce: committed together with the keyring, so that other nodes read it before anything sealed under it.
        """
        await self.load_ring(org_id)
        ring, revision = self._rings[org_id]
        rotated = ring.rotated()
        await self._store.commit(Batch(puts=[self._ring_put(org_id, rotated, expected=revision), announce]))
        self._rings[org_id] = (rotated, revision + 1)
        return rotated.current

    async def reserve(self, org_id: str, count: int) -> None:
        """Count uses of an org's current term, in blocks that outlive this process.

        Raises:
            StoreUnavailable: the term has sealed as many values as it may.
        """
        name = f"sys/uses/{org_id}/{self.ring(org_id).current}"
        while self._left.get(name, 0) < count:
            block = await self._reserve_block(name, count)
            self._left[name] = self._left.get(name, 0) + block
        self._left[name] = self._left.get(name, 0) - count  # a batch of deletes counts nothing, and may come first

    async def _reserve_block(self, name: str, count: int) -> int:
        # What a process reserves and does not use is lost, so a small limit is given out in small blocks.
        wanted = max(min(_BLOCK, self._max_uses // 64), count)
        while True:
            [entry] = await self._store.get([name])
            used = int.from_bytes(self._open(name, entry), "big") if entry.value is not None else 0
            block = min(wanted, self._max_uses - used)
            if block < count:
                raise StoreUnavailable(
                    "the current key of this org has sealed as many values as it may", "rotate it: sys/rotate"
                )
            sealed = self._wrap.seal((used + block).to_bytes(8, "big"), _aad(name, entry.revision + 1))
            try:
                await self._store.commit(Batch(puts=[Put(name, sealed, entry.revision)]))
            except Conflict:
                continue
            return block

    def _ring_put(self, org_id: str, ring: Keyring, *, expected: int) -> Put:
        name = ring_key(org_id)
        return Put(name, self._wrap.seal(ring.to_bytes(), _aad(name, expected + 1)), expected)

    def _open(self, name: str, entry: Entry) -> bytes:
        if entry.value is None:
            raise IntegrityError("a key of the vault is missing", "restore the store from a backup")
        return self._wrap.open(entry.value, _aad(name, entry.revision))


def new_id() -> str:
    """A random opaque id, 80 bits, in lower-case base32."""
    return base64.b32encode(os.urandom(10)).decode().lower()


def new_request_id() -> str:
    """A random UUID of version 4 (RFC 9562, section 5.4), as text; ``uuid.uuid4`` takes twice as long."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def ring_key(org_id: str) -> str:
    """Store key of an org's keyring."""
    return f"sys/keyring/{org_id}"


def _aad(name: str, revision: int) -> bytes:
    return b"keyhole key 1\0" + name.encode() + b"\0" + revision.to_bytes(8, "big")
