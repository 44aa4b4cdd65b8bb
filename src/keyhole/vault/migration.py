"""Another seal for a vault: the new one is proven, what it deals out is handed out, and then one commit changes over.

Where the store is, who opens the vault may do it (``migrate``). On a server it takes whoever opens the vault as it is
now, and a server that was started with the new seal (``Migration``). The vault gets a new root key with its new seal:
what the old seal opened is worth nothing any more.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest
from keyhole.core.record import Phase, Record
from keyhole.core.value import Secret
from keyhole.crypto.aead import KEY_SIZE
from keyhole.seals import Seal, open_seal
from keyhole.seals import quorum as quorum_of
from keyhole.vault.attempt import Attempt
from keyhole.vault.keys import Header, Quorum, new_request_id
from keyhole.vault.sealing import NO_RECOVERY, SHAMIR, HandOut, deal, type_of, wrap_proven

_NOBODY = ("nobody has shares of this vault", "stop the server, then: keyhole operator migrate")

if TYPE_CHECKING:
    from keyhole.vault.node import Node
    from keyhole.vault.vault import Vault


async def migrate(
    node: Node,
    spec: str,
    entered: Secret | None = None,
    *,
    hand_out: HandOut,
    recovery: tuple[int, int] = NO_RECOVERY,
) -> None:
    """Give an open vault another seal.

    Args:
        node: where it is open.
        spec: the new seal.
        entered: its passphrase or PIN, where it has one.
        hand_out: called once with new shares, before they count, so that they are never lost; they count if this
            returns.
        recovery: how many recovery shares the new seal gets, and how many of them are needed.

    Raises:
        Conflict: another node changed the keys meanwhile; the old seal is in force.
        InvalidRequest, Sealed, IntegrityError: the new seal does not work; the old one is in force.
    """
    vault, header = node.open_vault(), await _header(node)
    seal = open_seal(spec, passphrase=entered, vault_id=header.vault_id, create=True)
    shares, quorum = await asyncio.to_thread(deal, seal, recovery, hand_out)
    root = os.urandom(KEY_SIZE)
    blob = await wrap_proven(seal, root)
    if shares:
        hand_out(shares)
    await _change_over(vault, root, header._replace(seal=spec, root=blob, recovery=recovery), quorum)
    node.keep(seal)


class Migration:
    """The other way: a server whose settings name another seal than its vault has, and the keys of the old seal.

    Shares stay with those who hold them. Those of a seal become recovery shares of one that needs nobody; recovery
    shares become those of a seal of shares.

    Attributes:
        attempt: the shares that were entered so far.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.attempt: Attempt | None = None

    def wanted(self, header: Header) -> bool:
        """Do the settings name another kind of seal than the vault has?"""
        return bool(self._node.configured) and type_of(self._node.configured) != type_of(header.seal)

    def enter(self, entered: bytes, header: Header) -> tuple[Attempt | None, Secret] | None:
        """Take what opens the old seal, or a share towards it; the shares and what they give, once there are enough.

        Raises as ``enter_share``.
        """
        if not header.recovery[0] and type_of(header.seal) != SHAMIR:
            return None, Secret(entered)
        shares = self.enter_share(entered, header)
        return None if shares is None else (shares, shares.joined())

    def enter_share(self, share: bytes, header: Header) -> Attempt | None:
        """Take one share of the old seal, or one recovery share; all of them once there are enough.

        Raises:
            InvalidRequest: it is no share, or not of this vault, or nobody has shares.
            IntegrityError: the shares are not of one set; all of them are forgotten.
        """
        threshold = header.recovery[1] or (quorum_of(header.seal)[1] if type_of(header.seal) == SHAMIR else 0)
        if not threshold:
            raise InvalidRequest(*_NOBODY)
        attempt = self.attempt = self.attempt or Attempt(threshold)
        try:
            attempt.add(share)
            if not attempt.complete:
                return None
            self.attempt = None
            attempt.prove()
        except IntegrityError:
            self.attempt = None
            raise
        return attempt

    async def finish(self, vault: Vault, header: Header, shares: Attempt | None) -> Seal:
        """Change a vault, which its old seal has opened, over to the seal of the settings; that seal.

        Args:
            vault: not yet seen by anybody else.
            header: names the old seal.
            shares: that were entered; ``None`` for a seal without.

        Raises:
            InvalidRequest: these are not the shares that count.
        """
        quorum = await vault.keys.quorum()
        if quorum is not None and (shares is None or not shares.is_of(quorum.set_id)):
            raise InvalidRequest("these are not the shares of this vault", "or they were replaced since")
        spec = self._node.configured
        to_shares = type_of(spec) == SHAMIR
        if to_shares:
            if quorum is None or shares is None:
                raise InvalidRequest(*_NOBODY)
            spec = f"shares:{quorum.shares}:{quorum.threshold}"
        entered = shares.joined() if to_shares and shares is not None else None
        new = open_seal(spec, passphrase=entered, vault_id=header.vault_id, create=not to_shares)
        root = os.urandom(KEY_SIZE)
        blob = await wrap_proven(new, root)
        recovery = (quorum.shares, quorum.threshold) if quorum is not None and not to_shares else NO_RECOVERY
        await _change_over(vault, root, header._replace(seal=spec, root=blob, recovery=recovery), quorum)
        return new


async def _change_over(vault: Vault, root: bytes, header: Header, quorum: Quorum | None) -> None:
    record = Record(phase=Phase.INTENT, id=new_request_id(), operation="update", path="sys/seal-migration")
    await vault.journal.intend(record, vault.root_org)
    result = "ok"
    try:
        await vault.keys.replace(root, header, quorum, vault.clock.now())
    except Conflict as error:
        result = error.code
        raise Conflict("the keys of the vault were changed meanwhile", "its old seal is in force: begin anew") from None
    finally:
        outcome = Record(
            phase=Phase.OUTCOME, id=record.id, operation="update", path="sys/seal-migration", result=result
        )
        vault.journal.outcome(outcome.encode(), vault.root_org)


async def _header(node: Node) -> Header:
    header = await node.header()
    if header is None:
        raise IntegrityError("the vault's header is gone", "restore the store from a backup")
    return header
