"""What no single person may do: a threshold of shares is entered, one after the other, and then it happens.

Whose shares count lies under the root key in the store, and is read when an attempt begins and again when it is
complete: a node that slept does not take shares that another node has replaced. The attempt itself is this node's. It
is tied to its nonce, ends when the vault is sealed, and holds no more shares than are needed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.record import Phase, Record
from keyhole.vault.attempt import Attempt
from keyhole.vault.keys import Quorum, new_request_id

if TYPE_CHECKING:
    from keyhole.vault.node import Node
    from keyhole.vault.vault import Vault


class Ceremony:
    """One kind of act that takes several people; at most one attempt at a time.

    Args:
        node: whose vault it is about.
        name: as it stands in errors.
        path: where it is asked for, for the journal.
    """

    def __init__(self, node: Node, name: str, path: str) -> None:
        self._node = node
        self._name = name
        self._path = path
        self._lock = asyncio.Lock()
        self._vault: Vault | None = None
        self._attempt: Attempt | None = None
        self._failed = 0

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that is going on in the vault that is open now."""
        if self._vault is None or self._vault is not self._node.vault:
            self._forget()
        return self._attempt

    async def required(self) -> int:
        """How many shares it takes; 0 where nobody has shares. Raises ``Sealed``."""
        quorum = await self._node.open_vault().keys.quorum()
        return quorum.threshold if quorum is not None else 0

    async def cancel(self) -> None:
        """Forget the attempt, and what was entered. Raises ``Sealed``."""
        async with self._lock:
            self._node.open_vault()
            self._forget()

    def _forget(self) -> None:
        self._vault = self._attempt = None

    async def _begin(self) -> Quorum:
        """Start an attempt; whose shares it takes. Raises ``Sealed`` or ``InvalidRequest``."""
        vault = self._node.open_vault()
        if self.attempt is not None:
            raise InvalidRequest(f"{self._name} already in progress", "finish it, or cancel it")
        quorum = await vault.keys.quorum()
        if quorum is None:
            raise InvalidRequest("nobody has shares of this vault", "its seal is changed by: keyhole operator migrate")
        self._vault, self._attempt = vault, Attempt(quorum.threshold, quorum.set_id)
        return quorum

    async def _enter(self, share: bytes, nonce: str) -> Vault | None:
        """Take one share; the open vault once there are enough, and all of them are proved to be real.

        Raises:
            Sealed: the vault is sealed.
            InvalidRequest: there is no attempt with this nonce here, or the share does not count.
        """
        vault = self._node.open_vault()
        attempt = self._require(self.attempt, nonce)
        try:
            if not attempt.add(share):
                raise InvalidRequest("given key has already been provided during this generation operation")
            if not attempt.complete:
                return None
            await asyncio.to_thread(attempt.prove)
        except IntegrityError as error:
            attempt.forget()
            self._failed += 1
            raise InvalidRequest(error.reason, error.hint) from None
        quorum = await vault.keys.quorum()
        if quorum is None or not attempt.is_of(quorum.set_id):
            self._forget()
            raise InvalidRequest(f"the shares were replaced meanwhile: {self._name} is cancelled", "begin anew")
        return vault

    def _require(self, attempt: Attempt | None, nonce: str) -> Attempt:
        if attempt is None:
            raise InvalidRequest(
                f"no {self._name} in progress", "begin it; one that was begun on another server goes on there"
            )
        if nonce != attempt.nonce:
            raise InvalidRequest(
                f"incorrect nonce supplied; nonce for this {self._name} operation is {attempt.nonce!r}".replace(
                    "'", '"'
                ),
                "ask how it stands, and whether it is still the attempt that you mean to take part in",
            )
        return attempt

    async def _record_intent(self, vault: Vault) -> Record:
        """Say in the journal what is about to be done, and by how many sets of shares it was tried in vain before."""
        record = Record(
            phase=Phase.INTENT,
            id=new_request_id(),
            operation="update",
            path=self._path,
            count=self._failed,
        )
        await vault.journal.intend(record, vault.root_org)
        self._failed = 0
        return record

    def _record_outcome(self, vault: Vault, intent: Record, result: str = "ok") -> None:
        record = Record(phase=Phase.OUTCOME, id=intent.id, operation="update", path=self._path, result=result)
        vault.journal.outcome(record.encode(), vault.root_org)
