"""A new root key, and new shares, by a threshold of the shares that count now.

Of a vault with shares both are new: what the old ones open is worth nothing any more. Of one that opens without a
person the root key is new (``Rekey``), or the recovery shares are (``Rekey`` with ``recovery``).

With verification nothing changes until enough of the new shares were entered again, so that none is lost on the way to
its holder; until then the old ones count. The change itself is one commit. Whatever ends a process before it leaves the
old shares in force.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, Sealed
from keyhole.crypto.aead import KEY_SIZE
from keyhole.crypto.shamir import check_quorum
from keyhole.seals import Dealing, Seal, open_seal
from keyhole.vault.attempt import Attempt
from keyhole.vault.ceremony import Ceremony
from keyhole.vault.keys import Header, Quorum
from keyhole.vault.sealing import Shares, in_both_forms, known, recovery_shares, type_of, wrap_proven

if TYPE_CHECKING:
    from keyhole.vault.node import Node
    from keyhole.vault.vault import Vault


@dataclass(slots=True)
class _Wanted:
    """What was asked for when the attempt began."""

    shares: int
    threshold: int
    verify: bool


@dataclass(slots=True)
class _New:
    """What will be in force; nothing of it is stored yet.

    Attributes:
        header: as it was when this was made; if it has changed by then, this is void.
        seal: wraps the new root key; ``None`` where only the recovery shares are new.
        quorum: whose shares will count.
        shares: the new shares.
        check: the shares that were entered to prove that they arrived.
    """

    header: Header
    seal: Seal | None
    quorum: Quorum
    shares: Shares
    check: Attempt = field(init=False)

    def __post_init__(self) -> None:
        self.check = Attempt(self.quorum.threshold, self.quorum.set_id)


class Rekey(Ceremony):
    """One kind of rekey. See ``Ceremony``.

    Args:
        node: whose vault it is about.
        recovery: of the recovery shares, not of the seal.
    """

    def __init__(self, node: Node, *, recovery: bool = False) -> None:
        path = "sys/rekey-recovery-key/update" if recovery else "sys/rekey/update"
        super().__init__(node, "rekey", path)
        self._recovery = recovery
        self._wanted = _Wanted(0, 0, verify=False)
        self._new: _New | None = None

    async def status(self) -> dict[str, Any]:
        """How it stands, in the field names of Vault. Raises ``Sealed``."""
        required, attempt = await self.required(), self.attempt
        return {
            "nonce": attempt.nonce if attempt else "",
            "started": attempt is not None,
            "t": self._wanted.threshold,
            "n": self._wanted.shares,
            "progress": attempt.progress if attempt else 0,
            "required": required,
            "pgp_fingerprints": None,
            "backup": False,
            "verification_required": self._wanted.verify,
            **({"verification_nonce": self._new.check.nonce} if self._new else {}),
        }

    async def start(self, shares: int, threshold: int, *, verify: bool = False) -> dict[str, Any]:
        """Begin.

        Args:
            shares: how many new shares there shall be; for a seal without shares 1 or 0.
            threshold: how many of them shall be needed.
            verify: new shares count only once enough of them were entered again.

        Raises:
            InvalidRequest: the numbers make no sense, an attempt is going on, or nobody has shares of this kind.
        """
        async with self._lock:
            self._node.open_vault()
            header = await self._header()
            if self._recovery and not header.recovery[0]:
                raise InvalidRequest("this vault has no recovery shares", "a seal of shares is rekeyed by sys/rekey")
            if self._recovery or _has_shares(header):
                check_quorum(shares, threshold)
            elif {shares, threshold} - {0, 1}:
                raise InvalidRequest(
                    f"the seal {type_of(header.seal)} has no shares to deal out",
                    "secret_shares and secret_threshold are 1; recovery shares: sys/rekey-recovery-key",
                )
            elif verify:
                raise InvalidRequest("there are no new shares to verify", "leave require_verification out")
            elif self._node.opener is None:
                raise Sealed(
                    "the seal of this vault needs a person to wrap a new root key",
                    "stop the server, then: keyhole operator migrate",
                )
            await self._begin()
            self._wanted = _Wanted(shares, threshold, verify)
            return await self.status()

    async def enter(self, share: bytes, nonce: str) -> dict[str, Any]:
        """Take one share that counts now. The last one makes the new ones, which stand in this answer and nowhere else.

        Raises as ``Ceremony._enter`` does, and ``Conflict`` when another node changed the keys meanwhile.
        """
        async with self._lock:
            if self.attempt is not None and self._new is not None:
                raise InvalidRequest("rekey operation already finished; verification must be performed", "or cancel it")
            vault = await self._enter(share, nonce)
            if vault is None:
                return await self.status()
            new = await self._make(vault)
            answer = self._described(new, nonce)
            if self._wanted.verify and new.shares:
                self._new = new
                return answer
            self._forget()
            await self._commit(vault, new)
            return answer

    async def verification(self) -> dict[str, Any]:
        """How far the new shares are verified. Raises ``Sealed``, or ``InvalidRequest`` when there are none."""
        self._node.open_vault()
        new = self._require_new()
        return {
            "nonce": new.check.nonce,
            "started": True,
            "t": new.quorum.threshold,
            "n": new.quorum.shares,
            "progress": new.check.progress,
        }

    async def verify(self, share: bytes, nonce: str) -> dict[str, Any]:
        """Take one of the new shares. The last one puts them in force.

        Raises:
            InvalidRequest: there is nothing to verify, or the share is not one of the new ones.
            Conflict: another node changed the keys meanwhile; the new shares are void.
        """
        async with self._lock:
            vault, new = self._node.open_vault(), self._require_new()
            check = self._require(new.check, nonce)
            try:
                if not check.add(share):
                    raise InvalidRequest("given key has already been provided during this generation operation")
                if not check.complete:
                    return await self.verification()
                await asyncio.to_thread(check.prove)
            except IntegrityError as error:
                check.forget()
                raise InvalidRequest(error.reason, error.hint) from None
            self._forget()
            await self._commit(vault, new)
            return {"nonce": nonce, "complete": True}

    async def restart_verification(self) -> dict[str, Any]:
        """Forget the new shares that were entered; there is a new nonce."""
        async with self._lock:
            new = self._require_new()
            new.check = Attempt(new.quorum.threshold, new.quorum.set_id)
            return await self.verification()

    def _require_new(self) -> _New:
        if self.attempt is None or self._new is None:
            raise InvalidRequest("no rekey in progress", "there are no new shares to verify")
        return self._new

    async def _make(self, vault: Vault) -> _New:
        """New shares, and the seal that will wrap a new root key."""
        header = await self._header()
        wanted = self._wanted
        if self._recovery:
            shares, quorum = await asyncio.to_thread(recovery_shares, wanted.shares, wanted.threshold)
            return _New(header._replace(recovery=(wanted.shares, wanted.threshold)), None, quorum, shares)
        if _has_shares(header):
            spec = f"shares:{wanted.shares}:{wanted.threshold}"
            seal = open_seal(spec, passphrase=None, vault_id=header.vault_id, create=True)
            if not isinstance(seal, Dealing):
                raise IntegrityError("the seal deals out no shares")
            shares, quorum = known(await asyncio.to_thread(seal.deal))
            return _New(header._replace(seal=spec), seal, quorum, shares)
        quorum_now = await vault.keys.quorum()
        if self._node.opener is None or quorum_now is None:
            raise Sealed("the seal of this vault was closed meanwhile", "begin anew")
        return _New(header, self._node.opener, quorum_now, [])

    async def _commit(self, vault: Vault, new: _New) -> None:
        """The one step that puts the new in the place of the old."""
        root = os.urandom(KEY_SIZE)
        blob = await wrap_proven(new.seal, root) if new.seal is not None else b""
        intent = await self._record_intent(vault)
        try:
            if new.seal is None:
                await vault.keys.set_quorum(new.quorum, new.header)
            else:
                await vault.keys.replace(root, new.header._replace(root=blob), new.quorum, vault.clock.now())
        except KeyholeError as error:
            self._record_outcome(vault, intent, error.code)
            if isinstance(error, Conflict):
                raise Conflict(
                    "the keys of the vault were changed by another server meanwhile: the rekey is cancelled",
                    "the shares of before, or those that the other server gave, are in force",
                ) from None
            raise
        self._record_outcome(vault, intent)

    def _described(self, new: _New, nonce: str) -> dict[str, Any]:
        keys, keys_base64 = in_both_forms(new.shares)
        return {
            "nonce": nonce,
            "complete": True,
            "keys": keys,
            "keys_base64": keys_base64,
            "pgp_fingerprints": None,
            "backup": False,
            "verification_required": self._wanted.verify,
            "verification_nonce": new.check.nonce if self._wanted.verify else "",
        }

    async def _header(self) -> Header:
        header = await self._node.header()
        if header is None:
            raise IntegrityError("the vault's header is gone", "restore the store from a backup")
        return header

    def _forget(self) -> None:
        super()._forget()
        self._wanted = _Wanted(0, 0, verify=False)
        self._new = None


def _has_shares(header: Header) -> bool:
    return header.seal.partition(":")[0] == "shares"
