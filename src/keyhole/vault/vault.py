"""The door. Everything that is asked of an open vault comes through ``Vault.handle``, in one order.

    authenticate - decide - record - dispatch - record

A refusal is recorded and nothing else happens; an intent is durable before anything is released or changed; the
outcome follows. What the steps mean is written elsewhere; this file holds their order only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from keyhole.core.errors import (
    InternalError,
    KeyholeError,
    NotFound,
    PolicyDenied,
    Unauthenticated,
)
from keyhole.core.identity import Caller
from keyhole.core.path import parse_path
from keyhole.core.policy import Decision, PathRule
from keyhole.core.record import Intent, Record
from keyhole.core.request import Credential, Operation, Reply, Request
from keyhole.core.value import Secret
from keyhole.engines import Context, Engine, NetView
from keyhole.stores import Store
from keyhole.vault import given, wrapping
from keyhole.vault.asked import Asked, decide, intent_for, secrets_of
from keyhole.vault.audit import Journal
from keyhole.vault.callers import at_work, authenticate
from keyhole.vault.clock import Clock
from keyhole.vault.compiled import Compiled, OrgState
from keyhole.vault.devices import Devices
from keyhole.vault.dispatch import WRITES, dispatch, fault, recorded_by_itself, told_apart
from keyhole.vault.expiry import Expiry
from keyhole.vault.honey import NONE, baits, taste
from keyhole.vault.keys import Keys, new_request_id
from keyhole.vault.late import Late
from keyhole.vault.lending import Lent, lent_by, names_of, open_loan, used
from keyhole.vault.meters import Meters
from keyhole.vault.mount_table import MountTables
from keyhole.vault.mounts import AUTH, Mount, Mounts
from keyhole.vault.orgs import NO_ORG, SERVICES, Orgs
from keyhole.vault.quotas import Quotas
from keyhole.vault.recording import About, given_out, intent_of, refusal_of
from keyhole.vault.shares import Shares
from keyhole.vault.storage import Storage
from keyhole.vault.strangers import Strangers
from keyhole.vault.tokens import Tokens, read_form
from keyhole.vault.unset import no_alarm, no_passwords

if TYPE_CHECKING:
    from keyhole.core.service import Service
    from keyhole.crypto.passwords import PasswordRules
    from keyhole.vault.captured import Kept
    from keyhole.vault.leases import Leases
    from keyhole.vault.limiting import Limiting
    from keyhole.vault.notices import Notices
    from keyhole.vault.rotations import Rotations
    from keyhole.vault.sources import Sources

_SECRETS = "secret/"
_new = tuple.__new__  # what a class of tuples does itself, without its function in Python around it


Alarm = Callable[[OrgState, Caller, str, str, str], Awaitable[None]]
"""Raises an alarm: org, who, request id, service, and what in words without a value."""


class Vault:
    """An open vault.

    Args:
        store: where the bytes lie.
        keys: all keys in clear.
        journal: where records go.
        clock: the time.
        root_org: id of the org ``root``.
    """

    leases: Late[Leases] = Late("leases:Leases")
    limiting: Late[Limiting] = Late("limiting:Limiting")
    notices: Late[Notices] = Late("notices:Notices")
    rotations: Late[Rotations] = Late("rotations:Rotations")
    sources: Late[Sources] = Late("sources:Sources")

    def __init__(self, store: Store, keys: Keys, journal: Journal, clock: Clock, root_org: str, orgs: Orgs) -> None:
        self.store = store
        self.keys = keys
        self.journal = journal
        self.clock = clock
        self.root_org = root_org
        self.orgs = orgs
        self.default_egress = "deny"
        self.net: NetView | None = None
        self.passwords: Callable[[str, str], Awaitable[PasswordRules]] = no_passwords
        self.alarm: Alarm = no_alarm
        self.address: Callable[[], str] = str  # URL of the server in front of it, if there is one
        self.tokens = Tokens(keys.token_key)
        self.tables = MountTables(orgs)
        self.bare_mounts = Mounts(())
        self.decoys: dict[str, Engine] = {}
        self.compiled = Compiled(store, orgs, self.tables, self._policy)
        self.strangers = Strangers(clock, journal, root_org)
        self.expiry = Expiry(self)
        self.devices = Devices(self)
        self.quotas = Quotas(self)
        self.shares = Shares(self)
        self.meters = Meters(leases=self.expiry.counts, refused=self.shares.refused)

    def fix_mounts(self, fixed: list[Mount]) -> None:
        """Say which mounts every org has for good."""
        self.tables.fixed = fixed
        self.compiled.forget()
        self.bare_mounts = self.tables.standard(NO_ORG)

    def measured(self, request: Request) -> Coroutine[Any, Any, Reply]:
        """As ``handle``, counted in ``meters``."""
        return self.meters.counted(request, self.handle(request))

    async def handle(self, request: Request) -> Reply:
        """Do what is asked, or refuse it.

        Raises:
            KeyholeError: the refusal; ``request_id`` names its record.
        """
        if not request.id:
            request = request.named(new_request_id())
        try:
            reply = await self._answering(request)
        except KeyholeError as error:
            error.request_id = error.request_id or request.id
            if self.quotas.told:
                self.quotas.mark(request, error)
            if self.devices.concern():
                await self.devices.failed(request, error)
            raise
        except BaseException:
            self.devices.forget(request)
            self.quotas.told.pop(request.id, None)
            raise
        if self.quotas.told:
            self.quotas.mark(request, reply)
        if self.devices.concern():
            await self.devices.answered(request, reply)
        reply.request_id = request.id
        return reply

    def _answering(self, request: Request) -> Coroutine[Any, Any, Reply]:
        """What answers a request. Who is recognised at once, as nearly everybody is, goes a shorter way."""
        if request.stated is None and not request.path.startswith(AUTH) and not wrapping.asks(request):
            known = self.recognise(request.credential, request.org)
            if known is not None:
                return self._answer(*known, request)
        return self._handle(request)

    async def _handle(self, request: Request) -> Reply:
        if request.path.startswith(AUTH):
            from keyhole.vault.logins import log_in  # noqa: PLC0415  # the owner of a local vault does not log in

            if (reply := await log_in(self, request)) is not None:
                return reply
        if verb := wrapping.asks(request):
            return await wrapping.by_holder(self, request, verb)
        known = self.recognise(request.credential, request.org)
        if known is None:
            try:
                known = await self.authenticate(request.credential, request.org, remote=request.remote)
            except Unauthenticated as error:
                from keyhole.vault.logins import answer_stranger  # noqa: PLC0415  # as above

                return await answer_stranger(self, request, error)
        state, caller = known if request.stated is None else await at_work(self, *known, request)
        return await self._answer(state, caller, request)

    async def _answer(self, state: OrgState, caller: Caller, request: Request) -> Reply:
        """Do what a known caller asks, when it is their turn."""
        turn = await self.shares.begin(state, caller)
        try:
            if request.operation is Operation.USE:
                return await used(self, state, caller, request)
            if self.quotas.concern(state):
                await self.quotas.admit(state, request)
            try:
                asked = self._read_path(request, state, caller)
                if asked.operation in WRITES:
                    asked = await told_apart(self, state, caller, asked)
            except KeyholeError as error:
                await self.record_refusal(state, caller, request, error)
                raise
            decision = decide(caller, asked)
            if not decision.allowed:
                refusal = PolicyDenied("permission denied", f"{decision.reason}; ask for a grant")
                about = About(path=asked.path, rule=decision.rule, secrets=secrets_of(asked))
                await self.record_refusal(state, caller, request, refusal, **about)
                raise refusal
            if asked.target.route.recorded and not request.wrap_ttl:
                return await recorded_by_itself(self, state, caller, asked)
            record = intent_for(caller, asked, decision)
            written = self.journal.intend(record, state.org.id)
            try:
                await written
            except asyncio.CancelledError:  # it is written all the same, and then has an outcome
                self.conclude(state, record, "aborted")
                raise
            try:
                if asked.operation is Operation.READ and asked.target.mount.path == _SECRETS and state.honey != NONE:
                    await taste(self, state, caller, request, (asked.target.params.get("path") or "",))
                if self.devices.concern(state.generation):
                    await self.devices.asked(state, caller, asked)
                reply = await self._dispatch(state, caller, asked)
                if request.wrap_ttl:
                    reply = await wrapping.wrap(self, state, request, asked.path, reply)
            except KeyholeError as error:
                self.conclude(state, record, error.code)
                raise
            except BaseException as error:  # also when whoever waited has gone: no intent stays without an outcome
                self.conclude(state, record, InternalError.code if isinstance(error, Exception) else "aborted")
                if isinstance(error, Exception):
                    raise fault(error) from error
                raise
            self.conclude(state, record, "ok", **given_out(reply))
            return reply
        finally:
            turn.end()

    def recognise(self, credential: Credential, org: str = "") -> tuple[OrgState, Caller] | None:
        """What ``authenticate`` says of a token that was read since anything in the store last changed.

        ``None`` for all else, also for what is to be refused. Nothing here waits: nearly every request comes this way.
        """
        if type(credential) is not bytes or org:
            return None
        form = read_form(credential)
        state = None if form is None else self.compiled.current(form or self.root_org)
        if state is None:
            return None
        known = state.callers.get(self.tokens.hash(credential))
        if known is None or known[0] != state.generation or not known[1].live(self.clock.now()) or known[1].cidrs:
            return None
        return state, known[2]

    async def authenticate(
        self, credential: Credential, org: str = "", *, spend: bool = True, remote: str = ""
    ) -> tuple[OrgState, Caller]:
        """Who asks, with the compiled state of the org.

        Args:
            credential: a token, the owner of a local vault, or a caller made in this same request.
            org: the org where something is asked, when it is said; it must be the credential's own.
            spend: take one use from a use-limited token.
            remote: address of who asks; a token that is bound to addresses counts from these only.

        Raises:
            Unauthenticated: no token, or one that is unknown, expired, used up, revoked or of another org.
        """
        return await authenticate(self, credential, org, spend=spend, remote=remote)

    def storage(self, org_id: str, mount: str, *, configures: bool = False) -> Storage:
        """The storage of a mount of an org."""
        return self.orgs.storage(org_id, mount, configures=configures)

    def context(self, state: OrgState, caller: Caller, mount: Mount) -> Context:
        """What an engine is given."""
        return given.Given(self, state, caller, mount)

    async def unmount_all(self) -> None:
        """Leave the org root of a new vault with the mounts that every org has for good, and no ``secret/``."""
        await self.tables.change(self.root_org, lambda table, _mounts: table.entries.clear())

    def mounts_of(self, caller: Caller) -> Mounts:
        """The mounts of the org of a caller who was authenticated in this same request."""
        state = self.compiled.last(caller.org_id)
        return state.mounts if state is not None else self.bare_mounts

    async def services(self, state: OrgState) -> Mapping[str, Service]:
        """The services of an org, by name."""
        if (known := state.bindings.services) is not None:
            return known
        return await state.bindings.read(self.storage(state.org.id, SERVICES, configures=True))

    def conclude(self, state: OrgState, intent: Record | Intent, result: str, **fields: int | str) -> None:
        """Record how something that was intended ended; durable within 100 ms."""
        self.journal.outcome(intent.encode_outcome(result, **fields), state.org.id)
        if self.devices.concern():
            self.devices.concluded(intent, result, fields)

    async def record_refusal(
        self, state: OrgState, caller: Caller, request: Request, error: KeyholeError, **about: Unpack[About]
    ) -> None:
        """Record that something was refused. A refusal is one record, and is durable before it is said."""
        if request.operation is Operation.USE:
            about["secrets"] = await names_of(self, state, str(request.data.get("service", "")))
        record = refusal_of(caller, request, error, **about)
        await self.journal.intend(record, state.org.id)
        if self.devices.concern():
            await self.devices.refused(request, error, state, caller)

    async def record_unknown(self, request: Request, error: KeyholeError) -> None:
        """Record that somebody without a valid credential was refused; it goes into the journal of the org root.

        Raises:
            RateLimited: instead of the refusal, which was only counted.
        """
        self.strangers.admit(request.remote)
        record = refusal_of(None, request, error)
        await self.compiled.state(self.root_org)
        await self.journal.intend(record, self.root_org)
        if self.devices.concern():
            await self.devices.refused(request, error)

    @staticmethod
    def _read_path(request: Request, state: OrgState, caller: Caller) -> Asked:
        """The canonical path and who answers it."""
        operation = request.operation
        path = parse_path(request.path, listing=operation is Operation.LIST)
        try:
            return _new(Asked, (request, path, state.mounts.resolve(operation, path), operation))
        except NotFound as error:
            # Only who may do everything learns that there is no such route; others cannot probe for mounts.
            if not caller.allows(operation.value, path):
                raise PolicyDenied("permission denied", f"no policy of yours has a rule for {path}") from error
            raise

    def _dispatch(self, state: OrgState, caller: Caller, asked: Asked) -> Coroutine[Any, Any, Reply]:
        return dispatch(self, state, caller, asked)

    async def _durable(self, state: OrgState, record: Intent, written: asyncio.Future[None]) -> None:
        """Wait for an intent. It is written also when whoever asked goes away meanwhile, and then has an outcome."""
        try:
            await written
        except asyncio.CancelledError:
            self.conclude(state, record, "aborted")
            raise

    async def use(self, state: OrgState, caller: Caller, request: Request, path: str, *, own: bool = False) -> Lent:
        """Open the secrets of a service for one loan. They are released only after the intent is durable.

        Args and errors as of ``begin_use``.
        """
        lent = await self.begin_use(state, caller, request, path, own=own)
        await self._durable(state, lent.intent, lent.durable)
        return lent

    async def begin_use(
        self,
        state: OrgState,
        caller: Caller,
        request: Request,
        path: str,
        *,
        own: bool = False,
        kept: Kept | None = None,
        closed: bool = False,
    ) -> Lent:
        """As ``use``, while the intent is on its way to the disk: nothing may leave before ``Lent.durable`` is done.

        Args:
            state: of the caller's org.
            caller: authenticated within this same request.
            request: its data say what the call is, for the record.
            path: ``services/NAME``.
            kept: the credential to be lent instead, for which the call shows a placeholder.
            closed: nothing is opened, because the use is a way to the service's host alone.
            own: what is leased for it is for this use alone, and whoever uses it ends ``Lent.leases``.

        Raises:
            KeyholeError: the refusal.
        """
        if self.quotas.concern(state):
            await self.quotas.admit(state, request, path)
        asked, path, decision = path, "", Decision(allowed=False)
        state = self.compiled.last(state.org.id) or state  # the services may have changed since it was authenticated
        try:
            path = parse_path(asked)
            decision = caller.acl.decide("use", path)
            if not decision:
                raise PolicyDenied("permission denied", f"{decision.reason}; ask for a grant")
            service, secrets = state.lending.get(path) or await self._find_service(state, path)
            lending, secrets = lent_by(service, secrets, kept, closed=closed)
        except KeyholeError as error:
            await self.record_refusal(state, caller, request, error, path=path, rule=decision.rule)
            raise
        record = intent_of(caller, request, Operation.USE, path, decision.rule, secrets)
        durable = self.journal.intend(record, state.org.id)
        try:
            if self.devices.concern(state.generation):
                await self.devices.asking(state, caller, request, path, Operation.USE)
            if lending.sourced:  # asking a source makes something
                await asyncio.shield(durable)
            lent, leases, hidden = await self._lend(state, caller, lending, own=own, kept=kept)
            if state.former is None or state.former:  # else nothing is being rotated
                hidden = {**hidden, **await self.rotations.masked(state, secrets, lent)}
            if state.honey:
                await taste(self, state, caller, request, secrets)
        except KeyholeError as error:
            await self._durable(state, record, durable)
            self.conclude(state, record, error.code)
            raise
        except BaseException as error:
            durable.cancel()  # nobody waits for it any more; it is written all the same
            self.conclude(state, record, InternalError.code if isinstance(error, Exception) else "aborted")
            raise
        return _new(Lent, (lent, record, service, durable, leases, hidden))

    async def _find_service(self, state: OrgState, path: str) -> tuple[Service, tuple[str, ...]]:
        """The service at a path, and the names of the secrets that it lends."""
        above, _, name = path.rpartition("/")
        service = (await self.services(state)).get(name) if above == SERVICES else None
        if service is None:
            raise NotFound(f"there is no service {name!r}", "keyhole service list")
        await baits(self, state)
        found = state.lending[path] = service, tuple(sorted({secret for secret, _ in service.secret_refs()}))
        return found

    async def _lend(
        self, state: OrgState, caller: Caller, service: Service, *, own: bool = False, kept: Kept | None = None
    ) -> tuple[dict[str, Secret], tuple[str, ...], Mapping[str, tuple[Secret, ...]]]:
        """Internal operation: open secrets for the road. There is no route to it."""
        if kept is not None and kept.values:
            return kept.of(service), (), {}
        opening = self.sources.opening(state, caller, own=own, service=service)
        try:
            return await open_loan(opening.lend, service), opening.leases, opening.hidden
        except BaseException:
            await opening.give_up()
            raise

    async def watched(self, state: OrgState, service: Service) -> list[tuple[str, Secret]]:
        """What a service lends, by field, for the broker to notice it in requests; it goes to nobody."""
        nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await self.compiled.acl(state, ()))
        if service.sourced:
            return await self.sources.recent(state, nobody, service)
        lent, _, _ = await self._lend(state, nobody, service)
        names = tuple({path for path, _ in service.secret_refs()})
        former = await self.rotations.masked(state, names, lent)
        return [*lent.items(), *((name, value) for name, values in former.items() for value in values)]

    async def check_loan(self, state: OrgState, caller: Caller, service: Service) -> None:
        """Raises what a loan of the service would raise now, as far as that is known without making anything."""
        await (self.sources.check if service.sourced else self._lend)(state, caller, service)

    async def _policy(self, org_id: str, name: str) -> list[PathRule]:
        from keyhole.vault import policies  # noqa: PLC0415  # the owner of a local vault has none

        return await policies.load(self.storage(org_id, policies.MOUNT, configures=True), name)
