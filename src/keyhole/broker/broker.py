"""The road. Everything that is done with a secret in the outside world goes through ``Broker.handle``, in one order.

    authenticate - match - use - inject - send - scrub - record

``Transaction`` is one call in that order; here is what lives longer. While the intent is being committed, the upstream
connection and the request are made; nothing leaves before that.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from functools import partial

from keyhole.broker.authenticated import authenticate
from keyhole.broker.ca import Authorities
from keyhole.broker.capture import Captures
from keyhole.broker.directory import Directory, Match, Wanted
from keyhole.broker.journey import result_of
from keyhole.broker.lease import Lease
from keyhole.broker.live import StreamLimits
from keyhole.broker.noting import tunnel_asked
from keyhole.broker.opened import opened_before
from keyhole.broker.readings import of_flows, of_pool
from keyhole.broker.resources import Resources
from keyhole.broker.said import Connecting, about, record_refused
from keyhole.broker.sql.sessions import Sessions
from keyhole.broker.sql.upstream import Databases
from keyhole.broker.ssh import SshAgents
from keyhole.broker.transaction import Transaction
from keyhole.broker.upstream import Pool
from keyhole.core.errors import KeyholeError, Sealed
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.message import Answer, Call, Seat
from keyhole.core.request import Request
from keyhole.core.ssh import AGENT as SSH_AGENT
from keyhole.core.ssh import SPOKEN
from keyhole.net.tls import client_context
from keyhole.scrub import Scrubber
from keyhole.vault.compiled import OrgState
from keyhole.vault.exposition import Gauge
from keyhole.vault.node import Node
from keyhole.vault.vault import Vault


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
        self._node = node
        self._resources = Resources(node.open_vault, pool, streams or StreamLimits(), client_context)
        self._begin: Callable[[Call], Transaction] = partial(Transaction, self._resources)
        self._authorities: tuple[Vault, Authorities] | None = None
        self._captures: Captures | None = None
        self.notings = self._resources.notings
        self.clients: list[Callable[[], int]] = []
        self.sessions = Sessions(node, databases, self._resources)
        self.ssh = SshAgents(node, self._resources)
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
        state, caller = vault.recognise(credential) or await authenticate(vault, wanted.request(), spend=False)
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
            refusal = await self._resources.pool.unfit(*authority)
        if refusal is not None:
            vault.meters.calls.tunnel_refused(state.org.name, match.about, refusal.code)
            request = about(wanted.request(), match)
            await record_refused(self._resources.tripwires, vault, state, caller, request, refusal)
            if match.refusal is not None and (noting := await self.notings.of(state)) is not None:
                noting.add(caller, tunnel_asked(authority, match))
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

    async def record_refused(
        self, vault: Vault, state: OrgState, caller: Caller, request: Request, error: KeyholeError
    ) -> None:
        """Record the refusal of a call that is not made."""
        await record_refused(self._resources.tripwires, vault, state, caller, request, error)

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record that a face refused what it could not take for a call."""
        self._node.note_refusal(error, remote)

    async def handle(self, call: Call) -> Answer:
        """Make a call, or refuse it.

        Raises:
            KeyholeError: the refusal or failure; ``request_id`` names its record.
        """
        vault = self._node.open_vault()
        transaction = self._begin(call)
        try:
            if self._captures is not None:
                return await self._captures.watch(vault, call, transaction.run, private=transaction.leaks)
            return await transaction.run(vault)
        except BaseException as error:
            vault.meters.calls.refused(call.timing, result_of(error))
            if isinstance(error, KeyholeError):
                error.request_id = transaction.request.id
            raise

    async def directory(self, vault: Vault, state: OrgState) -> Directory:
        """The compiled services of an org."""
        return await self._resources.directory(vault, state)

    def authorities(self, vault: Vault) -> Authorities:
        """The CAs of the open vault."""
        if self._authorities is None or self._authorities[0] is not vault:
            self._authorities = (vault, Authorities(vault))
        return self._authorities[1]

    def readings(self, vault: Vault) -> Iterator[Gauge]:
        """What can be read of the broker now."""
        yield from of_flows(self._resources.live)
        yield from of_pool(self._resources.pool)
        yield Gauge("client_connections", {}, sum(clients() for clients in self.clients))
        yield Gauge("certificates_minted_total", {}, self.authorities(vault).minted)

    def watched_by(self, captures: Captures | None) -> None:
        """Let calls be noted from now on, or no longer."""
        self._captures = captures
        self._resources.pool.lease = Lease if captures is None else captures.lease

    def known_values(self, org_id: str) -> Scrubber | None:
        """What finds the values of an org's secrets, as far as they are known now."""
        return self._resources.tripwires.known(org_id)

    async def learn_values(self, vault: Vault, state: OrgState) -> Scrubber:
        """The same as of now."""
        return await self._resources.learn(vault, state)

    def _forget(self) -> None:
        """The vault was sealed: nothing that came out of it stays here."""
        if self._captures is not None:
            self._captures.forget()
            self.watched_by(None)
        self._resources.forget()
        self._authorities = None
        self.ssh.forget()
        sealed = Sealed("the vault was sealed while the call was under way", "unseal it, and call again")
        self._resources.live.cut(sealed)

    def distrust(self) -> None:
        """What upstreams are trusted by has changed: contexts that hold a client's certificate are made again."""
        self._resources.distrust()

    async def explain(self, vault: Vault, state: OrgState, caller: Caller, wanted: Wanted) -> Match:
        """How a call of this caller would be matched; nothing is done and nothing is lent."""
        return (await self.directory(vault, state)).decide(caller, wanted, state.org.egress)
