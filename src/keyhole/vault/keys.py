"""The keys of an open vault: root key, keyrings of the orgs, signing key, and the count of what each key has sealed.

The root key is never stored in clear: the seal wraps it. It wraps one keyring per org (entry ``sys/keyring/ORG``), the
journal's signing key (``sys/signing``), the counts (``sys/uses/ORG/TERM``) and whose shares count (``sys/quorum``).
The entry ``sys/vault`` is in clear: format, vault id, seal and the wrapped root key.

A new root key replaces the old one in one commit with all that it wraps. Other nodes hold the old one and find the new
one in ``sys/handover/ID``, wrapped by the old: that entry lives for ten minutes. ``sys/wrapped`` gets a new revision
whenever an entry joins those that the root key wraps, or the root key changes; so neither can miss the other.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from keyhole.core.errors import Conflict, IntegrityError, NotFound, StoreUnavailable
from keyhole.crypto.aead import AeadKey
from keyhole.crypto.kdf import hkdf
from keyhole.crypto.keyring import Keyring
from keyhole.crypto.signing import SigningKey
from keyhole.stores import Batch, Check, Delete, Put, Store

FORMAT = 1
SYSTEM = "sys"
HEADER = "sys/vault"
HANDOVER = "sys/handover/"
_SIGNING = "sys/signing"
_QUORUM = "sys/quorum"
_GUARD = "sys/wrapped"
_WRAPPED = ("sys/keyring/", "sys/uses/")
_HANDOVER_LIVES = 600.0
_BLOCK = 1024
_PAGE = 500
_RETRIES = 20
MAX_USES = 2**32  # NIST SP 800-38D, 8.3: random 96-bit nonces, per key


class Header(NamedTuple):
    """What lies in clear at the entrance of a store.

    Attributes:
        vault_id: random, names the vault to the keychain.
        seal: specification of the seal, such as ``passphrase`` or ``keyfile:/path``.
        root: the root key, wrapped by the seal.
        revision: of the entry, for the next write.
        recovery: how many recovery shares there are, and how many of them are needed; 0 and 0 for none. For people to
            read: what counts is the quorum under the root key.
    """

    vault_id: str
    seal: str
    root: bytes
    revision: int
    recovery: tuple[int, int] = (0, 0)

    def put(self) -> Put:
        """The write that stores this header as the next revision."""
        data: dict[str, Any] = {"format": FORMAT, "id": self.vault_id, "seal": self.seal}
        data["root"] = base64.b64encode(self.root).decode()
        if self.recovery[0]:
            data["recovery"] = self.recovery
        return Put(HEADER, json.dumps(data).encode(), self.revision)


class Quorum(NamedTuple):
    """Whose shares authorise what only several people may do: those of the seal, or else the recovery shares.

    Attributes:
        set_id: which shares belong together (``crypto.shamir``): a MAC under the key that they give.
        shares: how many there are.
        threshold: how many are needed.
    """

    set_id: bytes
    shares: int
    threshold: int


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
        shares, threshold = map(int, data.get("recovery", (0, 0)))
        root = base64.b64decode(data["root"], validate=True)
        header = Header(data["id"], data["seal"], root, entry.revision, (shares, threshold))
        if not (isinstance(header.vault_id, str) and isinstance(header.seal, str)):
            raise TypeError  # noqa: TRY301 - one place says what is wrong
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
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
        tell: called with the root key by ``announce``, and again with each one that replaces it.
    """

    def __init__(
        self,
        store: Store,
        root: bytes,
        *,
        max_uses: int = MAX_USES,
        tell: Callable[[bytes], None] | None = None,
    ) -> None:
        self._store = store
        self._tell = tell
        self._told = b""  # the root key, where somebody is told; all that is needed of it here is made of it
        self._announced = False
        self._take(root)
        self._rings: dict[str, tuple[Keyring, int]] = {}
        self._left: dict[str, int] = {}
        self._max_uses = max_uses
        self.signing: SigningKey

    def _take(self, root: bytes) -> None:
        self._wrap = AeadKey(hkdf(root, b"keyhole keyring wrap 1"))
        self._handover = HANDOVER + hkdf(root, b"keyhole handover name 1")[:16].hex()
        if self._tell is not None:
            self._told = root
            if self._announced:
                self._tell(root)

    def announce(self) -> None:
        """Tell whoever is to be told: the vault is open, and may be open to them."""
        self._announced = True
        if self._tell is not None:
            self._tell(self._told)

    async def create(self, header: Header, quorum: Quorum | None = None) -> None:
        """Write the header, the system keyring and the signing key of a new vault, all or nothing."""
        self.signing = SigningKey.generate()
        ring = Keyring.generate()
        puts = [header.put(), self._put(_SIGNING, self.signing.to_bytes(), 0), self._ring_put(SYSTEM, ring, expected=0)]
        if quorum is not None:
            puts.append(self._put(_QUORUM, _encode_quorum(quorum), 0))
        await self._store.commit(Batch(puts=puts))
        self._rings[SYSTEM] = (ring, 1)

    async def load(self) -> None:
        """Open the signing key and the system keyring. Raises ``IntegrityError`` when the root key is not theirs."""
        await self.refresh()
        await self.load_ring(SYSTEM)

    async def refresh(self) -> None:
        """Take up a new root key, if another node made one. Raises ``IntegrityError`` if it did too long ago."""
        content, _ = await self._read(_SIGNING)
        if content is None:
            raise IntegrityError("a key of the vault is missing", "restore the store from a backup")
        self.signing = SigningKey.from_bytes(content)

    async def load_ring(self, org_id: str) -> Keyring:
        """Read the keyring of an org from the store and keep it."""
        content, revision = await self._read(ring_key(org_id))
        if content is None:
            raise NotFound("there is no such org", "keyhole org list")
        ring = Keyring.from_bytes(content)
        self._rings[org_id] = (ring, revision)
        return ring

    async def quorum(self) -> Quorum | None:
        """Whose shares count now, whoever changed that; ``None`` where nobody has shares."""
        content, _ = await self._read(_QUORUM)
        return _decode_quorum(content) if content is not None else None

    async def replace(self, root: bytes, header: Header, quorum: Quorum | None, now: float) -> None:
        """Put another root key in the place of this one, with all that it wraps, all or nothing.

        Args:
            root: the new one, 32 bytes.
            header: names the seal and holds the new root key as that has wrapped it.
            quorum: whose shares count from now on; ``None`` for nobody's.
            now: seconds since the epoch.

        Raises:
            Conflict: another node changed the header meanwhile; nothing has changed.
        """
        fresh = Keys(self._store, root)
        for _ in range(_RETRIES):
            guard = await self._guard()
            puts = [header.put(), guard, *[await self._under(fresh, name) for name in await self._wrapped_names()]]
            deletes = []
            [entry] = await self._store.get([_QUORUM])
            if quorum is not None:
                puts.append(fresh._put(_QUORUM, _encode_quorum(quorum), entry.revision))  # the same class
            elif entry.value is not None:
                deletes.append(Delete(_QUORUM, entry.revision))
            bridge = self._wrap.seal(root, _aad(self._handover, 1))
            puts.append(Put(self._handover, bridge, 0, due=now + _HANDOVER_LIVES))
            try:
                await self._store.commit(Batch(puts=puts, deletes=deletes))
            except Conflict:
                if (await self._store.get([HEADER]))[0].revision != header.revision:
                    raise
                continue
            self._take(root)
            await self.refresh()
            for org_id in list(self._rings):
                await self._reload(org_id)
            return
        raise _busy()

    async def _under(self, fresh: Keys, name: str) -> Put:
        content, revision = await self._read(name)
        if content is None:  # it went away since it was listed
            raise _busy()
        return fresh._put(name, content, revision)  # the same class

    async def set_quorum(self, quorum: Quorum, header: Header) -> None:
        """Say whose shares count from now on; the root key stays. Raises ``Conflict`` as ``replace``."""
        _, revision = await self._read(_QUORUM)
        await self._store.commit(Batch(puts=[header.put(), self._put(_QUORUM, _encode_quorum(quorum), revision)]))

    async def _guard(self) -> Put:
        """To be committed with whatever the root key wraps from now on; fails if that is not the root key any more."""
        [entry] = await self._store.get([_GUARD])
        await self.refresh()
        return Put(_GUARD, b"", entry.revision)

    async def _reload(self, org_id: str) -> None:
        try:
            await self.load_ring(org_id)
        except NotFound:  # the org was deleted
            del self._rings[org_id]

    async def _wrapped_names(self) -> list[str]:
        names = [_SIGNING]
        for prefix in _WRAPPED:
            after = ""
            while page := await self._store.list(prefix, after=after, limit=_PAGE):
                names += page
                after = page[-1]
        return names

    def has_ring(self, org_id: str) -> bool:
        """Whether the keyring of an org was loaded before, and the org is there still, as far as is known."""
        return org_id in self._rings

    def ring(self, org_id: str) -> Keyring:
        """The keyring of an org that was loaded before."""
        return self._rings[org_id][0]

    def stands_on(self, org_id: str) -> Check:
        """Holds as long as the keyring of an org is the one that ``ring`` gives: for what is sealed with it now.

        So nothing is sealed under an older term once there is a newer one, whatever a node has not heard of yet.
        """
        return Check(ring_key(org_id), self._rings[org_id][1])

    async def renew(self, org_id: str, stood_on: Check) -> bool:
        """Whether the keyring is another one than a batch stood on; then ``ring`` gives the new one."""
        [entry] = await self._store.get([stood_on.key])
        if entry.revision == stood_on.expected or entry.value is None:
            return False
        if entry.revision != self._rings[org_id][1]:
            await self.load_ring(org_id)
        return True

    async def newer(self, org_id: str, ring: Keyring) -> bool:
        """Whether the keyring of an org is another one than this, which did not open something; then ``ring`` gives it.

        Another node may rotate and write at any moment: what is read then is under a term that was unknown before.
        """
        if self._rings[org_id][0] is not ring:
            return True
        [entry] = await self._store.get([ring_key(org_id)])
        if entry.value is None or entry.revision == self._rings[org_id][1]:
            return self._rings[org_id][0] is not ring
        await self.load_ring(org_id)
        return True

    async def drop_terms(self, org_id: str, announce: Put) -> None:
        """Let go of all terms but the current one: entries under them do not open any more.

        Args:
            org_id: whose keyring.
            announce: committed together with it.

        Raises:
            Conflict: the keyring, or what is announced, was changed meanwhile; nothing has changed.
        """
        ring, revision = self._rings[org_id]
        for term in ring.terms:
            ring = ring if term == ring.current else ring.without(term)
        await self._store.commit(Batch(puts=[self._ring_put(org_id, ring, expected=revision), announce]))
        self._rings[org_id] = (ring, revision + 1)

    @property
    def token_key(self) -> bytes:
        """Key of the hashes under which tokens are stored; a new root key leaves it as it is."""
        return self.ring(SYSTEM).keyed_hash("token", b"key of the vault")

    async def new_ring(self, org_id: str) -> None:
        """Make the keyring of a new org."""
        ring = Keyring.generate()
        for _ in range(_RETRIES):
            guard = await self._guard()
            with contextlib.suppress(Conflict):
                await self._store.commit(Batch(puts=[self._ring_put(org_id, ring, expected=0), guard]))
                self._rings[org_id] = (ring, 1)
                return
        raise _busy()

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

    async def used(self, org_id: str) -> int:
        """How many values an org's current term has sealed, as far as this process knows of the others."""
        name = f"sys/uses/{org_id}/{self.ring(org_id).current}"
        content, _ = await self._read(name)
        reserved = int.from_bytes(content, "big") if content is not None else 0
        return max(0, reserved - self._left.get(name, 0))

    async def _reserve_block(self, name: str, count: int) -> int:
        # What a process reserves and does not use is lost, so a small limit is given out in small blocks.
        wanted = max(min(_BLOCK, self._max_uses // 64), count)
        while True:
            content, revision = await self._read(name)
            used = int.from_bytes(content, "big") if content is not None else 0
            block = min(wanted, self._max_uses - used)
            if block < count:
                raise StoreUnavailable(
                    "the current key of this org has sealed as many values as it may", "rotate it: sys/rotate"
                )
            joins = [await self._guard()] if content is None else []
            put = self._put(name, (used + block).to_bytes(8, "big"), revision)
            try:
                await self._store.commit(Batch(puts=[put, *joins]))
            except Conflict:
                continue
            return block

    def _ring_put(self, org_id: str, ring: Keyring, *, expected: int) -> Put:
        return self._put(ring_key(org_id), ring.to_bytes(), expected)

    def _put(self, name: str, content: bytes, expected: int) -> Put:
        return Put(name, self._wrap.seal(content, _aad(name, expected + 1)), expected)

    async def _read(self, name: str) -> tuple[bytes | None, int]:
        """What lies there under the root key, and its revision; follows those who replaced the root key meanwhile.

        Raises:
            IntegrityError: it was changed, or the root key was replaced too long ago.
        """
        while True:
            wrap = self._wrap  # as of before the entry is read: what is read is never older than this key
            [entry] = await self._store.get([name])
            if entry.value is None:
                return None, entry.revision
            try:
                return wrap.open(entry.value, _aad(name, entry.revision)), entry.revision
            except IntegrityError:
                if not await self._follow(wrap):
                    raise

    async def _follow(self, wrap: AeadKey) -> bool:
        """Take the root key that lately replaced the one of ``wrap``, unless another request has."""
        name = self._handover
        [entry] = await self._store.get([name]) if self._wrap is wrap else [None]
        if self._wrap is not wrap:
            return True
        if entry is None or entry.value is None:
            return False
        self._take(wrap.open(entry.value, _aad(name, entry.revision)))
        return True


def _busy() -> Conflict:
    return Conflict("the keys of the vault are being changed by many at once", "try again")


def _encode_quorum(quorum: Quorum) -> bytes:
    return bytes((1, quorum.shares, quorum.threshold)) + quorum.set_id


def _decode_quorum(content: bytes) -> Quorum:
    return Quorum(content[3:], content[1], content[2])


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
