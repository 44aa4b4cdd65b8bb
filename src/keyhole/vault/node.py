"""One node over a store: it starts sealed, opens the vault with a seal, and closes it again.

While it is sealed every request is refused with ``Sealed``, but for the few that say how it stands or change that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, NotFound, Sealed
from keyhole.core.policy import ROOT
from keyhole.core.request import Credential, Reply, Request
from keyhole.core.value import Secret
from keyhole.engines import Route
from keyhole.seals import Seal, open_seal, quorum
from keyhole.stores import Batch, Put, Store
from keyhole.vault.audit import Journal, high_water
from keyhole.vault.clock import Clock, elapsed
from keyhole.vault.keys import MAX_USES, Header, Keys, new_id, read_header
from keyhole.vault.late import Late, late_function
from keyhole.vault.lease_lines import LeaseLimits
from keyhole.vault.orgs import Orgs
from keyhole.vault.sealing import (
    CHANGED_ELSEWHERE,
    NO_RECOVERY,
    HandOut,
    believed,
    deal,
    record_clock,
    record_unsealed,
    require_sealer,
    status_of,
    strengthen,
    unwrap,
    wrap_proven,
)
from keyhole.vault.strangers import RefusalLimits
from keyhole.vault.sweeping import Sweeping
from keyhole.vault.sys import tables
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.tokens import Grant
from keyhole.vault.vault import Vault

if TYPE_CHECKING:
    from keyhole.vault.attempt import Attempt
    from keyhole.vault.migration import Migration
    from keyhole.vault.rekey import Rekey
    from keyhole.vault.root_generation import RootGeneration

_SWEEP_EVERY = 1.0  # how late a lease may be taken back; what is due is found by index
_READY = "sys/ready"


class Node:
    """A node.

    Args:
        store: where the vault lies.
        extend: called with each vault that is opened; gives routes below ``sys/`` that higher floors serve.
        max_uses: values that one key term may seal.
        egress: setting for new orgs.
        refusals: bounds on what strangers can make the journal hold.
        leases: bounds on taking leases back.
        make, monotonic: the kind of vault; source of elapsed seconds.

    Attributes:
        vault: the open vault; ``None`` while it is sealed.
        address: URL under which clients reach the server; empty without one.
        forgetting: called when it is sealed, by whoever keeps something that came out of it.
        configured: the seal that the settings name, for a vault that is made over the API.
        opener: the seal that opened the vault, if that needs nobody; it stays when the vault is sealed.
        rekey, recovery_rekey, root_generation: what takes several people.
        migration: to the seal that the settings name, where that is another one.
        tell: told the root key of the open vault, for the other processes of this server; ``None`` without any.
        close_others: seals those.
    """

    migration: Late[Migration] = Late("migration:Migration")
    rekey: Late[Rekey] = Late("rekey:Rekey")
    recovery_rekey: Late[Rekey] = Late("rekey:Rekey", recovery=True)
    root_generation: Late[RootGeneration] = Late("root_generation:RootGeneration")

    def __init__(
        self,
        store: Store,
        *,
        extend: Callable[[Vault], tuple[Route, ...]] | None = None,
        max_uses: int = MAX_USES,
        egress: str = "deny",
        refusals: RefusalLimits | None = None,
        leases: LeaseLimits | None = None,
        make: Callable[..., Vault] = Vault,
        monotonic: Callable[[], float] = elapsed,
    ) -> None:
        self.store = store
        self.vault: Vault | None = None
        self.address = ""
        self.forgetting: list[Callable[[], None]] = []
        self._extend = extend
        self._max_uses = max_uses
        self._egress = egress
        self._refusals = refusals or RefusalLimits()
        self._leases = leases or LeaseLimits()
        self._make, self._monotonic = make, monotonic
        self._lock = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
        self._sweeping = Sweeping(self)
        self._ending: Vault | None = None  # lets nobody in any more, and is about to be closed
        self._sealing: asyncio.Task[None] | None = None
        self._attempt: Attempt | None = None
        self._failed = 0  # sets of shares that did not open it, since it was sealed
        self.opener: Seal | None = None
        self.configured = ""
        self.tell: Callable[[bytes], None] | None = None
        self.close_others: Callable[[], Awaitable[None]] | None = None

    async def header(self) -> Header | None:
        """What stands at the entrance of the store; ``None`` before ``init``."""
        return await read_header(self.store)

    def handle(self, request: Request) -> Coroutine[Any, Any, Reply]:
        """Hand a request to the door. Raises ``Sealed`` when the vault is not open."""
        return self.open_vault().measured(request)

    def open_vault(self) -> Vault:
        """The open vault. Raises ``Sealed``."""
        if self.vault is None:
            raise Sealed("Vault is sealed", "unseal it: keyhole operator unseal")
        return self.vault

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record a refusal that no request came of; while the vault is sealed there is no journal for it."""
        if self.vault is not None:
            self.vault.strangers.note(error, remote)

    async def init(
        self,
        spec: str,
        passphrase: Secret | None = None,
        *,
        seal: Seal | None = None,
        token: str = "",
        hand_out: HandOut | None = None,
        recovery: tuple[int, int] = NO_RECOVERY,
    ) -> str:
        """Make a new vault in an empty store, open it, and return the root token.

        Args:
            spec: names the seal, now and at the next start.
            passphrase: for the seal ``passphrase``.
            seal: a seal that is not on the shelf, for a vault that ends with the process.
            token: the root token, when somebody chose it.
            hand_out: called once with the shares of a seal that has some, or the recovery shares; nothing else has
                them.
            recovery: how many recovery shares, and how many of them are needed; 0 and 0 for none.

        Raises:
            Conflict: the store holds a vault already.
            InvalidRequest: the seal cannot be made so, or has shares and nobody takes them.
        """
        async with self._lock:
            if await self.header() is not None:
                raise Conflict("Vault is already initialized", "open it instead of making a new one")
            vault_id = new_id()
            seal = seal or open_seal(spec, passphrase=passphrase, vault_id=vault_id, create=True)
            shares, quorum = await asyncio.to_thread(deal, seal, recovery, hand_out)
            root = os.urandom(32)
            blob = await (wrap_proven(seal, root) if seal.unattended else asyncio.to_thread(seal.wrap, root))
            keys = self._keys(root)
            await keys.create(Header(vault_id, spec, blob, 0, recovery), quorum)
            vault = await self._open(keys, vault_id)
            self.keep(seal)
            grant = Grant(name="user/root", policies=(ROOT,), endless=True, path="auth/token/root", display="root")
            storage = vault.storage(vault.root_org, TOKENS)
            clear, _, _ = await vault.tokens.create(storage, grant, now=vault.clock.now(), clear=token)
            keys.announce()
            if hand_out is not None and shares:
                hand_out(shares)
            return clear

    async def unseal(
        self,
        passphrase: Secret | None = None,
        *,
        spec: str = "",
        seal: Seal | None = None,
        interactive: bool = False,
        credential: Credential | None = None,
    ) -> None:
        """Open the vault; an open one stays as it is.

        Args:
            passphrase: for the seal ``passphrase``.
            spec: another way to reach the same seal, such as a moved key file.
            seal: a seal that is not on the shelf.
            interactive: a keychain may ask its user.
            credential: who asks, when that is not who runs the process. A seal that needs nobody would open for
                anybody, so it opens for who could seal; a passphrase is proof enough.

        Raises:
            NotFound: there is no vault in this store.
            Unauthenticated, PolicyDenied: whoever asks may not open it; it stays sealed.
            IntegrityError: the key is wrong.
            Sealed: the seal has nothing to open with.
        """
        await self._end_sealing()
        async with self._lock:
            if self.vault is not None:
                return
            header = await self._made_header()
            if credential is not None and passphrase is None:  # the same again, however it was reached
                seal = seal or self.opener
            seal = seal or open_seal(
                spec or believed(header, self.store, self.configured),
                passphrase=passphrase,
                vault_id=header.vault_id,
                interactive=interactive,
            )
            keys = self._keys(root := await unwrap(seal, header))
            await keys.load()
            vault = await self._open(keys, header.vault_id, credential if seal.unattended else None)
            keys.announce()
            self.keep(seal)
            if credential is not None:
                self._record_unsealed(vault)
            await strengthen(self.store, seal, header, root)

    async def enter_share(self, share: bytes) -> None:
        """Take one share towards unsealing; the one that completes the threshold opens the vault.

        An open vault stays as it is. A share that was entered before counts once.

        Raises:
            NotFound: there is no vault in this store.
            InvalidRequest: it is no share, or none that can open this vault; what was entered before still counts.
            IntegrityError: the shares do not open this vault; all of them are forgotten.
        """
        await self._end_sealing()
        from keyhole.vault.attempt import Attempt  # noqa: PLC0415  # few vaults have shares

        async with self._lock:
            header = await self._made_header()
            if self.vault is not None:
                return
            _, threshold = quorum(header.seal)
            attempt = self._attempt = self._attempt or Attempt(threshold)
            try:
                attempt.add(share)
                if not attempt.complete:
                    return
                self._attempt = None
                seal = open_seal(believed(header, self.store), passphrase=attempt.joined(), vault_id=header.vault_id)
                keys = self._keys(await unwrap(seal, header))
            except IntegrityError:
                self._attempt = None
                self._failed += 1
                raise
            await keys.load()
            self._record_unsealed(await self._open(keys, header.vault_id))
            keys.announce()

    async def take(self, root: bytes) -> None:
        """Open the vault with the root key that a process of the same server hands over. Raises ``IntegrityError``."""
        async with self._lock:
            if self.vault is None:
                header = await self._made_header()
                await (keys := self._keys(root)).load()
                await self._open(keys, header.vault_id)
                with contextlib.suppress(KeyholeError):
                    spec = self.configured or believed(header, self.store)
                    self.keep(open_seal(spec, passphrase=None, vault_id=header.vault_id))

    async def migrate(self, entered: bytes) -> None:
        """Take what opens the old seal, or one share towards it, and change over to the seal of the settings.

        An open vault stays as it is.

        Raises:
            InvalidRequest: the settings name no other seal, or what was entered is not of this vault.
            IntegrityError: what was entered does not open it; shares are forgotten.
            Sealed: one of the two seals cannot be used now.
        """
        async with self._lock:
            header = await self._made_header()
            if self.vault is not None:
                return
            if not self.migration.wanted(header):
                raise InvalidRequest("there is no seal to migrate to", "start the server with --seal and the new one")
            spec = believed(header, self.store, hint=CHANGED_ELSEWHERE)  # before a share is given in vain
            if (taken := self.migration.enter(entered, header)) is None:
                return
            shares, secret = taken
            old = open_seal(spec, passphrase=secret, vault_id=header.vault_id)
            await (keys := self._keys(await unwrap(old, header))).load()
            vault = await self._open(keys, header.vault_id)
            self.vault = None  # nobody may use it before it has its new seal
            try:
                self.keep(await self.migration.finish(vault, header, shares))
            except BaseException:
                await vault.journal.close()
                raise
            self.vault = vault
            self._record_unsealed(vault)
            keys.announce()

    def keep(self, seal: Seal) -> None:
        """Keep what opens without a person, to wrap a new root key with it; what a person entered is not kept."""
        self.opener = seal if seal.unattended else None

    async def forget_shares(self) -> None:
        """Begin unsealing anew."""
        async with self._lock:
            self._attempt = self.migration.attempt = None

    def _keys(self, root: bytes) -> Keys:
        return Keys(self.store, root, max_uses=self._max_uses, tell=self.tell)

    async def _made_header(self) -> Header:
        header = await self.header()
        if header is None:
            raise NotFound("there is no vault in this store", "make a vault: keyhole init")
        return header

    def _record_unsealed(self, vault: Vault) -> None:
        record_unsealed(vault, self._failed)
        self._failed = 0

    async def status(self) -> dict[str, Any]:
        """How it stands, in the field names of Vault's ``sys/seal-status``."""
        from keyhole.vault.reported import REPORTED_VERSION  # noqa: PLC0415  # few commands ask

        header = await self.header()
        migration = self.vault is None and header is not None and self.migration.wanted(header)
        return {
            **status_of(header, self._attempt or self.migration.attempt, sealed=self.vault is None),
            "migration": migration,
            "version": REPORTED_VERSION,
            "storage_type": type(self.store).__module__.rpartition(".")[2],
        }

    async def check_ready(self) -> None:
        """Return when a write succeeds now. Raises ``Sealed`` or ``StoreUnavailable``."""
        self.open_vault()
        [entry] = await self.store.get([_READY])
        with contextlib.suppress(Conflict):  # another node has just written the same
            await self.store.commit(Batch(puts=[Put(_READY, b"", entry.revision)]))

    async def seal(self) -> None:
        """Forget the keys."""
        if not await self._close_vault():
            return
        for forget in self.forgetting:
            forget()
        # The parts of a vault know each other, so only the collector frees it; a server has told it to look away.
        gc.unfreeze()
        gc.collect()

    async def _close_vault(self) -> bool:
        async with self._lock:
            vault, self.vault, self._ending = self.vault or self._ending, None, None
            self._sweeping.forget()
            if vault is not None:
                await vault.expiry.close()
                await vault.compiled.settle()
                for counted in (vault.strangers, vault.quotas):
                    counted.flush()
                vault.shares.close()
                await vault.devices.close()
                await vault.journal.close()
            return vault is not None

    def leave(self) -> None:
        """The process is about to end: whoever waits for news is answered now."""
        if self.vault is not None:
            self.vault.journal.ending = True

    def seal_soon(self) -> None:
        """Let nobody in any more, and seal after the running request has been answered."""
        self._ending, self.vault = self.vault or self._ending, None
        self._sealing = asyncio.get_running_loop().create_task(self.seal())

    async def seal_all(self) -> None:
        """``seal_soon``, once the other processes of this server are sealed."""
        try:
            if self.close_others is not None:
                await self.close_others()
        finally:
            self.seal_soon()

    async def _end_sealing(self) -> None:
        if self._sealing is not None:
            await asyncio.wait([self._sealing])

    def start_sweeper(self) -> None:
        """Remove what is due (expired tokens, half revoked ones) from time to time; a server does this."""
        if self.vault is not None:
            self.vault.expiry.background = True
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_for_ever())

    async def close(self) -> None:
        """Seal, and let the store go; what is left in memory ends with the process."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self._close_vault()
        await self.store.close()

    async def _open(self, keys: Keys, vault_id: str, credential: Credential | None = None) -> Vault:
        orgs = Orgs(self.store, keys)
        clock = Clock(await self.store.now(), await high_water(self.store, keys.ring), self._monotonic)
        root = await orgs.root(egress=self._egress, now=clock.now())
        journal = Journal(self.store, keys.signing, keys.ring, clock)
        vault = self._make(self.store, keys, journal, clock, root.id, orgs)
        vault.default_egress, vault.address = self._egress, lambda: self.address
        vault.alarm = partial(late_function("alarms:raise_alarm"), vault)
        vault.strangers.limits, vault.expiry.limits = self._refusals, self._leases
        vault.expiry.background = self._sweeper is not None
        if credential is not None:
            await require_sealer(vault, credential)
        more = self._extend(vault) if self._extend is not None else ()
        vault.fix_mounts(tables(vault, vault_id, self.seal_all, more))
        record_clock(vault)
        self.vault, self._attempt = vault, None
        return vault

    async def _sweep_for_ever(self) -> None:
        while True:
            if (vault := self.vault) is None:
                await asyncio.sleep(_SWEEP_EVERY)
                continue
            await vault.expiry.rest(_SWEEP_EVERY)
            with contextlib.suppress(KeyholeError):
                await self._sweeping.sweep(vault)

    async def sweep(self) -> int:
        """Remove what is past its time: tokens that are expired, used up or half revoked (returns how many), leases.

        When it returns, each lease that was due has been tried at its source.
        """
        vault = self.open_vault()
        ended = await self._sweeping.sweep(vault)
        await vault.expiry.drain()
        return ended
