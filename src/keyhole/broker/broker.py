"""The road. Everything that is done with a secret in the outside world goes through ``Broker.handle``, in one order.

    authenticate - match - use - inject - send - scrub - record

While the intent is being committed, the upstream connection and the request are made; nothing leaves before that.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic

from keyhole.broker.ca import Authorities
from keyhole.broker.capture import Captures
from keyhole.broker.certified import client_identity
from keyhole.broker.checks import Gate
from keyhole.broker.connections import bound_to, spoken
from keyhole.broker.decided import Decided, note_tunnel
from keyhole.broker.directory import Directory, Match, Wanted
from keyhole.broker.errand import run_errand
from keyhole.broker.exchange import Exchange
from keyhole.broker.headed import summed_up, wanted_of
from keyhole.broker.journey import Journey, result_of
from keyhole.broker.kept import Kept
from keyhole.broker.late import judged
from keyhole.broker.lease import Lease
from keyhole.broker.live import Live, StreamLimits
from keyhole.broker.loan import Loan, Scrubbers
from keyhole.broker.minting import Minting, answered, minting_of
from keyhole.broker.noting import Notings
from keyhole.broker.opened import opened_before
from keyhole.broker.readings import of_flows, of_pool
from keyhole.broker.renewed import relending, with_renewed
from keyhole.broker.said import Connecting, about, egress, record_refused, record_tripped
from keyhole.broker.sql.sessions import Sessions
from keyhole.broker.sql.upstream import Databases
from keyhole.broker.ssh import SshAgents
from keyhole.broker.tripwires import Tripwires
from keyhole.broker.tunnel import beginning
from keyhole.broker.upstream import Pool
from keyhole.broker.watch import FrameWatch, Tripped
from keyhole.broker.websocket import WEBSOCKET, prepare
from keyhole.core.errors import Conflict, KeyholeError, PolicyDenied, Sealed, Unauthenticated
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.inject import KINDS
from keyhole.core.message import Answer, Call, Message, Seat
from keyhole.core.passthrough import PASSTHROUGH
from keyhole.core.record import Intent
from keyhole.core.request import Operation, Request
from keyhole.core.service import Service
from keyhole.core.ssh import AGENT as SSH_AGENT
from keyhole.core.ssh import SPOKEN
from keyhole.net.guard import Guard
from keyhole.net.tls import client_context
from keyhole.scrub import Scrubber
from keyhole.vault.alarms import to_the_end
from keyhole.vault.callers import working
from keyhole.vault.compiled import OrgState
from keyhole.vault.exposition import Gauge
from keyhole.vault.keys import new_request_id
from keyhole.vault.node import Node
from keyhole.vault.shares import Turn
from keyhole.vault.vault import Vault

_AGAIN = "send the request again"
_OPEN = Guard()


class Broker:
    """Lends secrets to outgoing requests.

    Args:
        node: where the door is.
        pool: the only outgoing connections.
        streams: bounds on what goes on after an answer's head.
        client_context: makes a TLS context that verifies upstreams, for a client's certificate to be put into.
        databases: opens connections to databases.

    Attributes:
        sessions: with databases.
        ssh: makes the agents of ``SSH_AUTH_SOCK``.
        notings: of calls, for a replay of policies.
        clients: say how many connections of clients listeners have.
    """

    def __init__(
        self,
        node: Node,
        pool: Pool,
        streams: StreamLimits | None = None,
        client_context: Callable[[], ssl.SSLContext] = client_context,
        *,
        databases: Databases,
    ) -> None:
        self._client_context = client_context
        self._node = node
        self._pool = pool
        self._live = Live(streams or StreamLimits())
        self._scrubbers = Scrubbers()
        self._kept = Kept()
        self._gate = Gate()
        self._tripwires = Tripwires()
        self._guards: dict[tuple[str, ...], Guard] = {}
        self._authorities: tuple[Vault, Authorities] | None = None
        self._captures: Captures | None = None
        self.notings = Notings(node.open_vault, self.learn_values)
        self.clients: list[Callable[[], int]] = []
        self.sessions = Sessions(
            node, databases, self._live, lambda: self._scrubbers, self.directory, self._guard, self._authenticate
        )
        self.ssh = SshAgents(node, lambda: self._scrubbers, self.directory, self._authenticate)
        node.forgetting.append(self._forget)

    async def open_tunnel(
        self, credential: bytes, host: str, port: int, remote: str = "", service: str = "", seat: Seat | None = None
    ) -> ssl.SSLContext | str | None:
        """Judge a CONNECT: who asks, and whether there can be anything for this caller at this host.

        Returns:
            The server's side of TLS for the host, or the scheme of the database that is there, or of a tunnel that is
            passed on and then opened by ``handle``.
        """
        vault = self._node.open_vault()
        wanted = Connecting(credential, Authority(host, port), service, remote)
        # The tunnel itself costs no use; each request in it does.
        state, caller = vault.recognise(credential) or await self._authenticate(vault, wanted.request(), spend=False)
        turn = await vault.shares.begin(state, caller)
        try:
            vault.shares.seat(seat, state, caller)
            return await self._open_tunnel(vault, state, caller, wanted)
        finally:
            turn.end()

    async def _open_tunnel(
        self, vault: Vault, state: OrgState, caller: Caller, wanted: Connecting
    ) -> ssl.SSLContext | str | None:
        authority = wanted.authority
        if authority == SSH_AGENT:
            return SPOKEN
        directory = await self.directory(vault, state)
        spoken = directory.spoken_at(authority, wanted.service)
        if spoken:  # judged when the session is opened, and refused in words that its client understands
            return spoken
        match = directory.tunnel(caller, authority, state.org.egress)
        refusal = match.refusal
        if refusal is None and state.org.egress != "deny" and directory.unknown(authority):
            refusal = await self._pool.unfit(*authority)
        if refusal is not None:
            vault.meters.calls.tunnel_refused(state.org.name, match.about, refusal.code)
            request = about(wanted.request(), match)
            await record_refused(self._tripwires, vault, state, caller, request, refusal)
            if match.refusal is not None:
                note_tunnel(await self.notings.of(state), caller, authority, match)
            refusal.request_id = request.id
            if self._captures is not None:
                self._captures.refused_tunnel(state, caller, request, refusal)
            raise refusal
        return await self.authorities(vault).context(state, authority.host, caller)

    def tunnel_at_once(
        self, credential: bytes, authority: Authority, service: str, seat: Seat | None
    ) -> ssl.SSLContext | None:
        """What ``open_tunnel`` gives, where nothing has to be waited for, made or recorded; ``None`` for all else."""
        vault = self._node.vault
        if vault is None:
            return None
        return opened_before(vault, self.authorities(vault), credential, authority, service, seat)

    def may_go_on(self, seat: Seat | None, remote: str) -> bool:
        """Whether a client may go on at once with what costs the processor; if not, it waits ``in_turn``."""
        vault = self._node.vault
        return vault is not None and vault.shares.may_go_on(seat, remote)

    async def in_turn(self, seat: Seat | None, remote: str) -> None:
        """Wait until a client may go on with what costs the processor."""
        await self._node.open_vault().shares.go_on(seat, remote)

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record that a face refused what it could not take for a call."""
        self._node.note_refusal(error, remote)

    async def handle(self, call: Call) -> Answer:
        """Make a call, or refuse it.

        Raises:
            KeyholeError: the refusal or failure; ``request_id`` names its record.
        """
        vault = self._node.open_vault()
        leaks, data = summed_up(call)
        request = Request(call.token, Operation.USE, "services", data, "", call.remote, new_request_id())
        if not leaks:
            request.stated = call.stated
        timing = call.timing
        timing.begun = monotonic()
        try:
            if self._captures is not None:
                make = partial(self._handle, call=call, request=request, leaks=leaks)
                return await self._captures.watch(vault, call, make, private=leaks)
            return await self._handle(vault, call, request, leaks=leaks)
        except BaseException as error:
            vault.meters.calls.refused(timing, result_of(error))
            if isinstance(error, KeyholeError):
                error.request_id = request.id
            raise

    async def _handle(self, vault: Vault, call: Call, request: Request, *, leaks: bool) -> Answer:
        state, caller = vault.recognise(call.token) or await self._authenticate(vault, request)
        call.timing.org = state.org.name
        turn = await vault.shares.begin(state, caller, partial(vault.meters.calls.queueing, call.timing))
        try:
            vault.shares.seat(call.seat, state, caller)
            return await self._make(vault, state, caller, Decided(call, request, turn), leaks=leaks)
        except BaseException:
            turn.end()
            raise

    async def _make(self, vault: Vault, state: OrgState, caller: Caller, found: Decided, *, leaks: bool) -> Answer:
        """Make the call of a known caller; whatever it raises, its turn is ended by who called this."""
        caller = await self._decide(vault, state, caller, found, leaks=leaks)
        call, request, match, target, turn = found.call, found.request, found.match, found.target, found.turn
        watch, minting = found.watch, found.minting
        message = Message(call.method, call.scheme, call.host, call.port, target, list(call.headers))
        message.http2, message.trailers = call.http2, call.trailers
        if call.upgrade == WEBSOCKET:
            prepare(message, call.upgrade)
        if match.service is None:
            return await self._pass(vault, state, caller, request, call, message, watch, turn)
        return await self._lend(vault, state, caller, request, call, message, match.service, watch, minting, turn)

    async def _decide(self, vault: Vault, state: OrgState, caller: Caller, found: Decided, *, leaks: bool) -> Caller:
        """Judge a call, and record its refusal; who makes it, in the work that it says."""
        try:
            if found.call.stated is not None and not leaks:
                caller = working(caller, found.call.stated)
            if leaks:
                raise PolicyDenied(
                    "the request carries the token of its own caller, which no upstream may see",
                    "send it in Proxy-Authorization only",
                )
            await self._judge(vault, state, caller, found)
        except Tripped as error:
            await to_the_end(record_tripped(self._tripwires, vault, state, caller, found, error))
            found.note(caller, error)
            raise
        except KeyholeError as error:
            await record_refused(self._tripwires, vault, state, caller, found.request, error)
            found.note(caller, error)
            raise
        found.note(caller)
        return caller

    async def _judge(self, vault: Vault, state: OrgState, caller: Caller, found: Decided) -> None:
        """Find what a call goes through and what is asked of it. Raises the refusal."""
        call, request, timing, turn = found.call, found.request, found.call.timing, found.turn
        directory = await self.directory(vault, state)
        found.noting = await self.notings.of(state)
        wanted = wanted_of(call)
        found.target = wanted.target
        if caller.bound:
            wanted = replace(wanted, own=lambda service: self._tripwires.session(vault, caller, service))
        match = found.match = directory.decide(caller, wanted, state.org.egress, passed=call.upgrade == PASSTHROUGH)
        timing.service = match.service.name if match.service is not None else match.about
        service = match.service and self._tripwires.session(vault, caller, match.service)
        if match.service is not None and service is not None and directory.captures:
            key = self._tripwires.key(vault, state.org.id)
            minting = found.minting = await minting_of(vault, state, caller, match.service, call, key, turn)
            service = service if minting is None else minting.service(service)
        await self._tripwires.judge(vault, state, call, service)
        if match.refusal is not None:
            found.request = about(request, match)
            raise match.refusal
        found.watch = self._tripwires.watch(vault, state, caller, call, service, request.id)
        if match.checks is not None:
            request = found.request = about(request, match)
            with vault.meters.calls.queueing(timing):
                passed = await self._gate.admit(vault, state, caller, match, wanted, call, request, turn.take)
            found.call, found.request = passed.call, passed.request
            turn.then(passed.end)

    async def _lend(
        self,
        vault: Vault,
        state: OrgState,
        caller: Caller,
        request: Request,
        call: Call,
        message: Message,
        service: Service,
        watch: FrameWatch | None,
        minting: Minting | None,
        turn: Turn,
    ) -> Answer:
        """Use, inject, send, scrub."""
        guard = self._guard(service.allow_addresses)
        key = (state.org.id, service.name, service.allow_addresses, *bound_to(call, caller))
        lending = service if minting is None else minting.service(service)
        kind = KINDS[lending.inject.kind]
        lease = None
        if not (service.certified or kind.answers):  # the connection is made while the intent is being committed
            lease = self._reserved(key, call, guard)
        try:
            kept, passes = minting.kept if minting is not None else None, call.upgrade == PASSTHROUGH
            path = f"services/{service.name}"
            lent = await vault.begin_use(state, caller, request, path, kept=kept, closed=passes)
        except BaseException:
            if lease is not None:
                lease.cancel()
            raise
        shown = self._tripwires.session(vault, caller, service) if lending is service else lending
        loan = Loan(shown, lent.secrets, lent.intent, self._scrubbers, lent.former)
        journey = Journey(
            vault, state, caller, service, loan.intent, loan, self._live, call.timing, turn, lent.durable, watch
        )
        if lending is service:
            self._tripwires.lent(vault, state, loan)
        if lent.service is not service and lent.service.as_data() != service.as_data():
            # Changed since it was matched: what is lent for the new destination must not go to the old one.
            if lease is not None:
                lease.cancel()
            await journey.refuse(Conflict(f"the service {service.name!r} was changed meanwhile", _AGAIN))
        if passes and lease is not None:
            opening = journey.once_recorded(lease, lease.connect)
            return await journey.tunnel(opening, beginning(call.scheme, call.host))
        exchange = Exchange(
            loan,
            journey.recorded,
            lambda: self._reserve(key, state, service, loan, call, guard),
            lambda errand: run_errand(vault, state, self._pool, guard, service, loan.intent.record(), errand),
            self._kept.room(state.org.id, service, loan.values) if kind.keeps else None,
            vault.clock.now,
            turn,
            None if minting is not None or kind.keeps else relending(vault, state, caller, service, loan),
        )
        sending = exchange.run(lease, message, judged(vault, caller, service, call.body))
        sending = with_renewed(vault, state, service, loan, sending)
        if minting is not None:
            sending = answered(vault, state, caller, service, minting, loan, turn, sending)
        return await journey.answer(sending, call)

    async def _reserve(
        self, key: tuple[object, ...], state: OrgState, service: Service, loan: Loan, call: Call, guard: Guard
    ) -> Lease:
        """A connection for a loan that is not reserved before its secrets are there."""
        if not service.certified:
            return self._reserved(key, call, guard)
        room = self._kept.room(state.org.id, service, loan.certificate)
        identity = await client_identity(loan.certificate, room.kept, self._client_context)
        return self._reserved((*key, identity.digest), call, guard, identity.context)

    def _reserved(
        self, key: tuple[object, ...], call: Call, guard: Guard, context: ssl.SSLContext | None = None
    ) -> Lease:
        return self._pool.reserve(
            key, call.scheme, call.host, call.port, guard, context, speaks=spoken(call), timing=call.timing
        )

    async def _pass(
        self,
        vault: Vault,
        state: OrgState,
        caller: Caller,
        request: Request,
        call: Call,
        message: Message,
        watch: FrameWatch | None,
        turn: Turn,
    ) -> Answer:
        """A host without any service, where the org's egress rule lets calls through: nothing is lent."""
        lease = self._reserved((state.org.id, *bound_to(call, caller)), call, _OPEN)
        intent = Intent.of(egress(caller, request, state.org.egress))
        durable = vault.journal.intend(intent, state.org.id)
        journey = Journey(vault, state, caller, None, intent, None, self._live, call.timing, turn, durable, watch)
        body = judged(vault, caller, None, call.body)
        return await journey.answer(journey.once_recorded(lease, lambda: lease.send(message, body)), call)

    async def directory(self, vault: Vault, state: OrgState) -> Directory:
        """The compiled services of an org."""
        known: Directory | None = state.bindings.derived.get(Directory)
        if known is None:
            await vault.services(state)
            known = state.bindings.compiled(Directory)
        return known

    def authorities(self, vault: Vault) -> Authorities:
        """The CAs of the open vault."""
        if self._authorities is None or self._authorities[0] is not vault:
            self._authorities = (vault, Authorities(vault))
        return self._authorities[1]

    def readings(self, vault: Vault) -> Iterator[Gauge]:
        """What can be read of the broker now."""
        yield from of_flows(self._live)
        yield from of_pool(self._pool)
        yield Gauge("client_connections", {}, sum(clients() for clients in self.clients))
        yield Gauge("certificates_minted_total", {}, self.authorities(vault).minted)

    def watched_by(self, captures: Captures | None) -> None:
        """Let calls be noted from now on, or no longer."""
        self._captures = captures
        self._pool.lease = Lease if captures is None else captures.lease

    def known_values(self, org_id: str) -> Scrubber | None:
        """What finds the values of an org's secrets, as far as they are known now."""
        return self._tripwires.known(org_id)

    async def learn_values(self, vault: Vault, state: OrgState) -> Scrubber:
        """The same as of now."""
        return await self._tripwires.learn(vault, state)

    def _forget(self) -> None:
        """The vault was sealed: nothing that came out of it stays here."""
        if self._captures is not None:
            self._captures.forget()
            self.watched_by(None)
        self.notings.forget()
        self._scrubbers = Scrubbers()
        self._kept = Kept()
        self._gate = Gate()
        self._tripwires = Tripwires()
        self._authorities = None
        self.ssh.forget()
        self._live.cut(Sealed("the vault was sealed while the call was under way", "unseal it, and call again"))

    def distrust(self) -> None:
        """What upstreams are trusted by has changed: contexts that hold a client's certificate are made again."""
        self._kept = Kept()

    async def explain(self, vault: Vault, state: OrgState, caller: Caller, wanted: Wanted) -> Match:
        """How a call of this caller would be matched; nothing is done and nothing is lent."""
        return (await self.directory(vault, state)).decide(caller, wanted, state.org.egress)

    async def _authenticate(self, vault: Vault, request: Request, *, spend: bool = True) -> tuple[OrgState, Caller]:
        try:
            return await vault.authenticate(request.credential, spend=spend, remote=request.remote)
        except Unauthenticated as error:
            error.request_id = request.id
            await vault.record_unknown(request, error)
            raise

    def _guard(self, allow: tuple[str, ...]) -> Guard:
        guard = self._guards.get(allow)
        if guard is None:
            if len(self._guards) > 1024:
                self._guards.clear()
            guard = self._guards[allow] = Guard(allow)
        return guard
