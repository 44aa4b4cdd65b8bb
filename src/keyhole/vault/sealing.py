"""What a vault does with its seal: wrap a root key and prove that it comes back, and deal out shares.

Shares belong to the seal, or they are recovery shares: those of a vault that opens without a person. Recovery shares
are made from a random key that wraps nothing. They only prove who may have a new root key or a new root token.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, PolicyDenied
from keyhole.core.identity import ROOT_ORG
from keyhole.core.record import Phase, Record
from keyhole.core.request import Credential
from keyhole.core.value import Secret
from keyhole.crypto.aead import KEY_SIZE
from keyhole.seals import KEPT_ELSEWHERE, Dealing, Renewing, Seal, asks_for, quorum
from keyhole.stores import Batch, Store
from keyhole.vault.keys import Header, Quorum, new_id, new_request_id

if TYPE_CHECKING:
    from keyhole.vault.attempt import Attempt
    from keyhole.vault.vault import Vault

SHAMIR = "shamir"
NO_RECOVERY = (0, 0)
_RECOVERY = (5, 3)  # as of Vault
_NAME_IT = "if it is this vault's, name the whole seal in the settings: KEYHOLE_SEAL, or --seal of a server"
CHANGED_ELSEWHERE = "stop the server, then: keyhole operator migrate, with KEYHOLE_SEAL for the seal that the vault has"
"""What a server that was started with the new seal says: its settings have no room for the old one besides."""
_CLOCK_NOISE = 1.0  # seconds by which the clocks of two processes may differ without meaning anything
HandOut = Callable[[list[Secret]], None]
Shares = list[Secret]
_log = logging.getLogger("keyhole")


def type_of(spec: str) -> str:
    """The kind of a seal; that with shares by the name under which clients of the wire format know it."""
    kind = spec.partition(":")[0]
    return SHAMIR if kind == "shares" else kind


def believed(header: Header, store: Store, configured: str = "", *, hint: str = _NAME_IT) -> str:
    """The seal that a header names, where its word may be taken.

    Nothing proves a header before its vault is open. A key kept elsewhere means that code is loaded, or a file of this
    machine is read and sent to a host; so where others can write to the store, the settings have to name such a seal.

    Raises:
        InvalidRequest: they do not.
    """
    kind = header.seal.partition(":")[0]
    if kind not in KEPT_ELSEWHERE or not getattr(store, "shared", False):
        return header.seal
    if configured.partition(":")[0] == kind:
        return configured
    raise InvalidRequest(f"a key kept elsewhere ({kind}) is not used because a database says so", hint)


def has_no_shares(kind: str) -> bool:
    """Is it a seal whose key somebody else keeps?"""
    return kind in KEPT_ELSEWHERE


def default_recovery(spec: str) -> tuple[int, int]:
    """How many recovery shares a vault gets, and how many of them are needed, where nobody says."""
    return _RECOVERY if has_no_shares(spec.partition(":")[0]) else NO_RECOVERY


def deal(seal: Seal, recovery: tuple[int, int], hand_out: HandOut | None) -> tuple[Shares, Quorum | None]:
    """The shares of a new seal, or recovery shares where some are asked for, and what they are known by.

    Args:
        seal: a new one.
        recovery: how many recovery shares, and how many of them are needed; 0 and 0 for none.
        hand_out: who will get them; without somebody to take them nobody would ever have them.

    Raises:
        InvalidRequest: the numbers make no sense, or nobody takes the shares.
    """
    own = isinstance(seal, Dealing)
    if own and recovery != NO_RECOVERY:
        raise InvalidRequest("a seal of shares needs no recovery shares", "its own shares are used")
    if not own and recovery == NO_RECOVERY:
        return [], None
    if hand_out is None:
        raise InvalidRequest(
            "a vault with shares is not made in passing", "make it first: keyhole init --seal shares:5:3"
        )
    return known(seal.deal()) if isinstance(seal, Dealing) else recovery_shares(*recovery)


def recovery_shares(shares: int, threshold: int) -> tuple[Shares, Quorum]:
    """New recovery shares. Their key is kept nowhere. Raises ``InvalidRequest`` for numbers that make no sense."""
    from keyhole.crypto.shamir import split  # noqa: PLC0415  # few vaults have shares

    return known([Secret(base64.b64encode(share.encode())) for share in split(os.urandom(KEY_SIZE), shares, threshold)])


def known(shares: Shares) -> tuple[Shares, Quorum]:
    """Shares with what they are known by."""
    from keyhole.crypto.shamir import Share  # noqa: PLC0415  # as above

    first = Share.decode(base64.b64decode(shares[0].reveal()))
    return shares, Quorum(first.set_id, len(shares), first.threshold)


async def wrap_proven(seal: Seal, root: bytes) -> bytes:
    """The root key as the seal wraps it, once it is certain that the seal gives it back.

    Raises:
        IntegrityError: it does not.
        Sealed, InvalidRequest: as the seal says.
    """
    blob = await asyncio.to_thread(seal.wrap, root)
    if not hmac.compare_digest(await asyncio.to_thread(seal.unwrap, blob), root):
        raise IntegrityError(f"the seal {seal.name} does not give back what it wraps", "check its key")
    return blob


async def unwrap(seal: Seal, header: Header) -> bytes:
    """The root key. A key that does not fit is told from damage as far as it can be."""
    try:
        return await asyncio.to_thread(seal.unwrap, header.root)
    except IntegrityError as error:
        if seal.name == "shares":
            raise IntegrityError(
                "these shares do not open this vault, and all are forgotten",
                "one is wrong, or they are another vault's: enter them again, each from its holder",
            ) from None
        what = {"passphrase": "passphrase is", "age": "age identity is"}.get(seal.name, f"{seal.name}'s key is")
        raise type(error)(
            f"the {what} not the one of this vault", "try again; if it is right, the vault's header was changed"
        ) from None


async def keep_alive(seal: Seal | None) -> None:
    """Renew what a seal proves itself by, where that would end; a failure is logged."""
    if not isinstance(seal, Renewing):
        return
    try:
        await asyncio.to_thread(seal.keep_alive)
    except KeyholeError as error:
        _log.warning("the seal %s cannot renew its token: %s", seal.name, error)


async def strengthen(store: Store, seal: Seal, header: Header, root: bytes) -> None:
    """Wrap the root key anew, where it was wrapped with weaker parameters than today's."""
    if seal.needs_rewrap(header.root):
        stronger = header._replace(root=await asyncio.to_thread(seal.wrap, root))
        with contextlib.suppress(KeyholeError):  # another node did it, or the store is read-only: try next time
            await store.commit(Batch(puts=[stronger.put()]))


def in_both_forms(shares: Sequence[Secret]) -> tuple[list[str], list[str]]:
    """Shares in hexadecimal digits and in base64, for who made them."""
    texts = [share.reveal().decode() for share in shares]
    return [base64.b64decode(text).hex() for text in texts], texts


def status_of(header: Header | None, attempt: Attempt | None, *, sealed: bool) -> dict[str, Any]:
    """What the header says, in the field names of Vault's ``sys/seal-status``, and how far an attempt has come."""
    spec = header.seal if header is not None else ""
    recovery = header.recovery if header is not None else NO_RECOVERY
    shares, threshold = recovery if recovery[0] else quorum(spec) if spec else NO_RECOVERY
    cluster = {}
    if header is not None and not sealed:
        cluster["cluster_name"] = f"keyhole-{header.vault_id[:8]}"
        cluster["cluster_id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, header.vault_id))
    return {
        **cluster,
        "type": type_of(spec),
        "sealed": sealed,
        "initialized": header is not None,
        "t": threshold,
        "n": shares,
        "progress": attempt.progress if attempt else 0,
        "nonce": attempt.nonce if attempt and attempt.progress else "",
        "build_date": "",
        "recovery_seal": recovery[0] > 0,
        "asks_for": asks_for(spec),
    }


async def require_sealer(vault: Vault, credential: Credential) -> None:
    """Only who may seal may undo it."""
    _, caller = await vault.authenticate(credential, spend=False)
    if caller.org != ROOT_ORG or caller.scope != "full" or not caller.allows("update", "sys/seal", sudo=True):
        raise PolicyDenied("permission denied", "unsealing this vault needs sudo on sys/seal; or restart the server")


def record_unsealed(vault: Vault, failed: int) -> None:
    """Say in the journal what could not be said while it was sealed, and how many sets of shares were wrong."""
    record = Record(
        phase=Phase.EVENT,
        id=new_request_id(),
        operation="unseal",
        path="sys/unseal",
        result="ok",
        count=failed,
    )
    vault.journal.outcome(record.encode(), vault.root_org)


def record_clock(vault: Vault) -> None:
    """Say in the journal that the clock was set back since the last records, if it was."""
    if vault.clock.anomaly > _CLOCK_NOISE:
        record = Record(phase=Phase.EVENT, id=new_id(), operation="clock", result="the clock was set back")
        vault.journal.outcome(record.encode(), vault.root_org)
