"""A call while it is decided and sent: one object, whose methods are the stages of the road in their order.

    authenticate - match - use - inject - send - scrub - record

A transaction ends with the head of the answer, and the message with what was injected goes with it. For later stages it
makes three others, which hold only what they need of it:

- ``Loan`` is what the door lent: it injects, and scrubs.
- ``Exchange`` drives one injection, which may send more than one message before it is content.
- ``Journey`` goes from the intent to the outcome, also while a body or stream goes on after the head. It scrubs the
  answer, records how the call ended, and is what is cut when the caller may no longer make it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from time import monotonic

from keyhole.broker.authenticated import authenticate
from keyhole.broker.certified import ClientIdentity, client_identity
from keyhole.broker.connections import UpstreamAnswer, bound_to, spoken
from keyhole.broker.directory import Match, Wanted
from keyhole.broker.errand import run_errand
from keyhole.broker.exchange import Exchange, OwnAnswer
from keyhole.broker.headed import summed_up, wanted_of
from keyhole.broker.journey import Journey
from keyhole.broker.late import judged
from keyhole.broker.lease import Lease
from keyhole.broker.loan import Loan
from keyhole.broker.minting import Minting, answered, minting_of
from keyhole.broker.noting import Noting, asked_of
from keyhole.broker.renewed import relending, with_renewed
from keyhole.broker.resources import Resources
from keyhole.broker.said import about, egress, record_refused, record_tripped
from keyhole.broker.tunnel import beginning
from keyhole.broker.watch import FrameWatch, Tripped
from keyhole.broker.websocket import WEBSOCKET, prepare
from keyhole.core.errors import Conflict, KeyholeError, PolicyDenied
from keyhole.core.identity import Caller
from keyhole.core.inject import KINDS
from keyhole.core.message import Answer, Call, Heard, Message
from keyhole.core.passthrough import PASSTHROUGH
from keyhole.core.record import Intent
from keyhole.core.request import Operation, Request
from keyhole.core.service import Service
from keyhole.net.guard import Guard
from keyhole.vault.alarms import to_the_end
from keyhole.vault.callers import working
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.lending import Lent
from keyhole.vault.shares import Turn
from keyhole.vault.vault import Vault

_OPEN = Guard()
_UNMATCHED = Match()


class Transaction:
    """One call, from who asks to the head of the answer. Run once.

    Args:
        resources: what all calls have in common.
        call: what is asked.

    Attributes:
        leaks: it shows its caller's own token.
        call: with its body held, once that was judged.
        request: as its record shows it.
        vault, state, caller, turn: the door, who asks, and what it takes of its org's share; known once authenticated.
            The caller of a call that is allowed is in the work that it says.
        match: what it was matched to.
        target: canonical; empty before that is known.
        minting: what becomes of a credential that it makes.
        watch: looks at what the caller sends on a stream.
        message: goes upstream; there once the call is allowed.
    """

    __slots__ = (
        "_noting",
        "_resources",
        "call",
        "caller",
        "leaks",
        "match",
        "message",
        "minting",
        "request",
        "state",
        "target",
        "turn",
        "vault",
        "watch",
    )

    vault: Vault
    state: OrgState
    caller: Caller
    turn: Turn
    message: Message

    def __init__(self, resources: Resources, call: Call) -> None:
        self._resources = resources
        self.leaks, data = summed_up(call)
        self.call = call
        self.request = Request(call.token, Operation.USE, "services", data, "", call.remote, new_request_id())
        if not self.leaks:
            self.request.stated = call.stated
        call.timing.begun = monotonic()
        self.match = _UNMATCHED
        self.target = b""
        self.minting: Minting | None = None
        self.watch: FrameWatch | None = None
        self._noting: Noting | None = None

    async def run(self, vault: Vault) -> Answer:
        """Make the call over a door. Raises the refusal or failure, which is on record."""
        await self._authenticate(vault)
        try:
            vault.shares.seat(self.call.seat, self.state, self.caller)
            await self._decide()
            self.message = self._upstream_message()
            return await self.forward()
        except BaseException:
            self.turn.end()
            raise

    # Authenticate.

    async def _authenticate(self, vault: Vault) -> None:
        """Find who asks, and wait for their turn."""
        call = self.call
        self.vault = vault
        self.state, self.caller = vault.recognise(call.token) or await authenticate(vault, self.request)
        call.timing.org = self.state.org.name
        queueing = partial(vault.meters.calls.queueing, call.timing)
        self.turn = await vault.shares.begin(self.state, self.caller, queueing)

    # Match: refuse first, and record it.

    async def _decide(self) -> None:
        """Judge the call. A refusal is recorded, and noted like what is allowed, before it is raised."""
        try:
            if self.leaks:
                raise PolicyDenied(
                    "the request carries the token of its own caller, which no upstream may see",
                    "send it in Proxy-Authorization only",
                )
            if self.call.stated is not None:
                self.caller = working(self.caller, self.call.stated)
            await self._match()
        except KeyholeError as error:
            await self._record_refused(error)
            self._note(error)
            raise
        self._note()

    async def _match(self) -> None:
        """Find what the call goes through, and ask what is asked of it. Raises the refusal."""
        resources, vault, state, caller, call = self._resources, self.vault, self.state, self.caller, self.call
        directory = await resources.directory(vault, state)
        self._noting = await resources.notings.of(state)
        wanted = wanted_of(call)
        self.target = wanted.target
        if caller.bound:
            wanted = replace(wanted, own=partial(resources.tripwires.session, vault, caller))
        match = self.match = directory.decide(caller, wanted, state.org.egress, passed=call.upgrade == PASSTHROUGH)
        call.timing.service = match.service.name if match.service is not None else match.about
        shown = match.service and resources.tripwires.session(vault, caller, match.service)
        if match.service is not None and shown is not None and directory.captures:
            key = resources.tripwires.key(vault, state.org.id)
            self.minting = await minting_of(vault, state, caller, match.service, call, key, self.turn)
            shown = shown if self.minting is None else self.minting.service(shown)
        await resources.tripwires.judge(vault, state, call, shown)
        if match.refusal is not None:
            self.request = about(self.request, match)
            raise match.refusal
        self.watch = resources.tripwires.watch(vault, state, caller, call, shown, self.request.id)
        if match.checks is not None:
            await self._check(wanted)

    async def _check(self, wanted: Wanted) -> None:
        """Ask what the service's checks ask; its body is held where they look at it. Raises the refusal."""
        vault, match, call = self.vault, self.match, self.call
        request = self.request = about(self.request, match)
        with vault.meters.calls.queueing(call.timing):
            passed = await self._resources.gate.admit(
                vault, self.state, self.caller, match, wanted, call, request, self.turn.take
            )
        self.call, self.request = passed.call, passed.request
        self.turn.then(passed.end)

    async def _record_refused(self, error: KeyholeError) -> None:
        tripwires, vault, state = self._resources.tripwires, self.vault, self.state
        if isinstance(error, Tripped):
            service = self.match.about
            await to_the_end(record_tripped(tripwires, vault, state, self.caller, self.request, error, service))
        else:
            await record_refused(tripwires, vault, state, self.caller, self.request, error)

    def _note(self, error: KeyholeError | None = None) -> None:
        """Note how the call was decided, where an operator turned that on."""
        if self._noting is not None:
            self._noting.add(self.caller, asked_of(self.call, self.match, self.target, error))

    # Use, inject, send, scrub, record.

    def _upstream_message(self) -> Message:
        call = self.call
        message = Message(call.method, call.scheme, call.host, call.port, self.target, list(call.headers))
        message.http2, message.trailers = call.http2, call.trailers
        if call.upgrade == WEBSOCKET:
            prepare(message, call.upgrade)
        return message

    async def forward(self) -> Answer:
        """Make a call that is allowed: with what its service lends, or with nothing where there is no service."""
        service = self.match.service
        return await (self._pass() if service is None else self._lend(service))

    async def _pass(self) -> Answer:
        """A host without any service, where the org's egress rule lets calls through."""
        vault, state, caller, call, live = self.vault, self.state, self.caller, self.call, self._resources.live
        lease = self._reserve(None)
        intent = Intent.of(egress(caller, self.request, state.org.egress))
        durable = vault.journal.intend(intent, state.org.id)
        journey = Journey(vault, state, caller, None, intent, None, live, call.timing, self.turn, durable, self.watch)
        body = judged(vault, caller, None, call.body)
        return await journey.answer(journey.once_recorded(lease, lambda: lease.send(self.message, body)), call)

    async def _lend(self, service: Service) -> Answer:
        resources, vault, state, caller, call = self._resources, self.vault, self.state, self.caller, self.call
        lending = service if self.minting is None else self.minting.service(service)
        lease = None
        if not (service.certified or KINDS[lending.inject.kind].answers):
            lease = self._reserve(service)  # the connection is made while the intent is being committed
        lent = await self._use(service, lease)
        shown = resources.tripwires.session(vault, caller, service) if lending is service else lending
        loan = Loan(shown, lent.secrets, lent.intent, resources.scrubbers, lent.former)
        live, turn, watch = resources.live, self.turn, self.watch
        journey = Journey(
            vault, state, caller, service, lent.intent, loan, live, call.timing, turn, lent.durable, watch
        )
        if lending is service:
            resources.tripwires.lent(vault, state, loan)
        if lent.service is not service and lent.service.as_data() != service.as_data():
            # Changed since it was matched: what is lent for the new destination must not go to the old one.
            if lease is not None:
                lease.cancel()
            changed = f"the service {service.name!r} was changed meanwhile"
            await journey.refuse(Conflict(changed, "send the request again"))
        if lease is not None and call.upgrade == PASSTHROUGH:
            opening = journey.once_recorded(lease, lease.connect)
            return await journey.tunnel(opening, beginning(call.scheme, call.host))
        return await journey.answer(self._send(service, loan, journey, lease), call)

    async def _use(self, service: Service, lease: Lease | None) -> Lent:
        """Have the door decide, record and open; the lease is given back where it does not."""
        try:
            kept = None if self.minting is None else self.minting.kept
            closed, path = self.call.upgrade == PASSTHROUGH, f"services/{service.name}"
            return await self.vault.begin_use(self.state, self.caller, self.request, path, kept=kept, closed=closed)
        except BaseException:
            if lease is not None:
                lease.cancel()
            raise

    def _send(
        self, service: Service, loan: Loan, journey: Journey, lease: Lease | None
    ) -> Awaitable[UpstreamAnswer | OwnAnswer]:
        """Inject and send once the intent is durable; what the answer brings that is new is kept before it is given."""
        resources, vault, state, caller, minting = self._resources, self.vault, self.state, self.caller, self.minting
        keeps = KINDS[loan.service.inject.kind].keeps
        exchange = Exchange(
            loan,
            journey.recorded,
            partial(self._reserve_lent, service, loan),
            partial(self._run_errand, service, loan),
            resources.kept.room(state.org.id, service, loan.values) if keeps else None,
            vault.clock.now,
            self.turn,
            None if minting is not None or keeps else relending(vault, state, caller, service, loan),
        )
        sending = exchange.run(lease, self.message, judged(vault, caller, service, self.call.body))
        sending = with_renewed(vault, state, service, loan, sending)
        if minting is not None:
            sending = answered(vault, state, caller, service, minting, loan, self.turn, sending)
        return sending

    async def _run_errand(self, service: Service, loan: Loan, errand: Message) -> Heard:
        """Send a message of the injection's own."""
        resources, intent = self._resources, loan.intent.record()
        guard = resources.guard(service.allow_addresses)
        return await run_errand(self.vault, self.state, resources.pool, guard, service, intent, errand)

    # Connections.

    async def _reserve_lent(self, service: Service, loan: Loan) -> Lease:
        """A connection that is not reserved before its secrets are there, or a further one."""
        if not service.certified:
            return self._reserve(service)
        resources = self._resources
        room = resources.kept.room(self.state.org.id, service, loan.certificate)
        identity = await client_identity(loan.certificate, room.kept, resources.client_context)
        return self._reserve(service, identity)

    def _reserve(self, service: Service | None, identity: ClientIdentity | None = None) -> Lease:
        call, resources, org_id = self.call, self._resources, self.state.org.id
        key: tuple[object, ...]
        if service is None:
            key, guard = (org_id, *bound_to(call, self.caller)), _OPEN
        else:
            key = (org_id, service.name, service.allow_addresses, *bound_to(call, self.caller))
            guard = resources.guard(service.allow_addresses)
        context = None
        if identity is not None:
            key, context = (*key, identity.digest), identity.context
        return resources.pool.reserve(
            key, call.scheme, call.host, call.port, guard, context, speaks=spoken(call), timing=call.timing
        )
