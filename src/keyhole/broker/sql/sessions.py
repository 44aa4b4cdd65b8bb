"""Sessions with databases, in the order of every call: authenticate, match, use, connect, stream, record.

What is leased for a session is leased for it alone, and ends with it. Whoever may no longer use the service, or whose
lease has ended, is cut off (``broker.live``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from time import monotonic

from keyhole.broker.authenticated import authenticate
from keyhole.broker.directory import Match
from keyhole.broker.journey import result_of
from keyhole.broker.live import Flow
from keyhole.broker.loan import Loan
from keyhole.broker.resources import Resources
from keyhole.broker.sql.stream import SqlStream
from keyhole.broker.sql.upstream import Account, Databases, Destination, Line, needs_tls
from keyhole.core.errors import (
    Conflict,
    Expired,
    InternalError,
    InvalidRequest,
    KeyholeError,
    PolicyDenied,
    RateLimited,
    Sealed,
)
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.lease import LeaseState
from keyhole.core.record import Intent, clip
from keyhole.core.request import Operation, Request
from keyhole.core.service import Service
from keyhole.core.sql import SqlCall
from keyhole.core.timing import Timing
from keyhole.net.mysql import packets
from keyhole.net.mysql.talk import MysqlTalk
from keyhole.net.postgres import messages
from keyhole.net.tasks import Tasks
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.lending import Lent
from keyhole.vault.node import Node
from keyhole.vault.vault import Vault


class SqlSession(Flow):
    """One session from its durable intent to its outcome. Ends exactly once."""

    __slots__ = (
        "_ended",
        "_intent",
        "_lease_end",
        "_over",
        "_sessions",
        "_state",
        "leases",
        "ours",
        "stop",
        "stream",
    )

    def __init__(
        self,
        sessions: Sessions,
        vault: Vault,
        state: OrgState,
        caller: Caller,
        lent: Lent,
        timing: Timing,
        over: Callable[[], None],
    ) -> None:
        super().__init__(vault, caller, lent.service, timing)
        self._over = over
        self._sessions = sessions
        self._state = state
        self._intent: Intent = lent.intent
        self._ended = False
        self._lease_end = 0.0
        self.leases = lent.leases
        self.stop: Callable[[], Awaitable[None]] | None = None  # what the database does for it
        self.stream: SqlStream | None = None
        self.ours = b""  # what the client's cancel requests name it by

    async def _require_still(self, lendable: dict[tuple[str, str], int]) -> None:
        seen = self._seen
        await super()._require_still(lendable)
        if self.leases and (self._seen != seen or self.vault.clock.now() >= self._lease_end):
            await self._require_leases()

    async def _require_leases(self) -> None:
        ends = []
        for lease_id in self.leases:
            lease = await self.vault.leases.get(self.caller.org_id, lease_id)
            if lease is None or lease.state is not LeaseState.ACTIVE or lease.expires <= self.vault.clock.now():
                raise Expired("the lease of the session has ended", "connect again; it is made anew")
            ends.append(lease.expires)
        self._lease_end = min(ends)

    def end(
        self,
        error: BaseException | None = None,
        *,
        received: int = 0,
        sent: int = 0,
        statements: int = 0,
        masked: bool = False,
    ) -> None:
        """Record the outcome, and take back what was leased."""
        if self._ended:
            return
        self._ended = True
        self._over()
        busy = self.stream is not None and self.stream.busy
        self.flowing = None
        self._sessions.over(self, busy=busy)
        result = result_of(self.reason or error)
        self.vault.meters.calls.ended(self.timing, result, received, sent)
        self.vault.conclude(
            self._state,
            self._intent,
            result,
            received=received,
            sent=sent,
            statements=statements,
            scrubbed=int(masked),
            lease=",".join(self.leases),
            milliseconds=int((self.vault.clock.now() - self.since) * 1000),
        )

    async def take_back(self) -> None:
        """End the leases of the session."""
        if self.leases:
            with contextlib.suppress(KeyholeError):  # they end by themselves as well
                await self.vault.expiry.end(self._state, self.leases)


class Sessions:
    """All sessions of one broker.

    Args:
        node: where the door is.
        databases: opens connections.
        resources: what sessions and calls have in common.

    Attributes:
        elsewhere: passes a cancel request to the other workers of this server. Raises ``PolicyDenied``.
    """

    def __init__(self, node: Node, databases: Databases, resources: Resources) -> None:
        self._node = node
        self._databases = databases
        self._resources = resources
        self._open: set[SqlSession] = set()
        self._keys: dict[bytes, SqlSession] = {}
        self.elsewhere: Callable[[bytes | None, bytes, str], Awaitable[None]] | None = None
        self._after = Tasks()

    def __len__(self) -> int:
        return len(self._open)

    async def in_turn(self, remote: str) -> None:
        """Wait for the turn of a client from an address."""
        with contextlib.suppress(Sealed):  # without a vault there is nobody to wait for, and no session
            await self._node.open_vault().shares.go_on(None, remote)

    async def open(self, call: SqlCall) -> SqlStream:
        """Open a session, or refuse it.

        Raises:
            KeyholeError: the refusal or failure; ``request_id`` names its record.
        """
        vault = self._node.open_vault()
        data = {"method": call.scheme.upper(), "target": f"/{clip(call.database)}"}
        if call.authority is not None:
            data["host"] = str(call.authority)
        request = Request(call.token, Operation.USE, "services", data, "", call.remote, new_request_id())
        timing = Timing()
        timing.begun = monotonic()
        over: Callable[[], None] = _nothing
        try:
            state, caller = vault.recognise(call.token) or await authenticate(vault, request)
            timing.org, match = state.org.name, Match()
            await vault.shares.admit(state, caller)
            try:
                directory = await self._resources.directory(vault, state)
                match = directory.session(caller, call.scheme, call.service, call.authority)
                service = match.service
                if match.refusal is not None or service is None:
                    raise match.refusal or InternalError("no service and no refusal")
                self._admit(service, call)
                over = vault.shares.session(state, caller, self._databases.limits.sessions)
            except KeyholeError as error:
                about = timing.service = match.about or (match.service.name if match.service is not None else "")
                request = request.but(data={**data, "service": about})
                await vault.record_refusal(state, caller, request, error)
                raise
            timing.service, opened = service.name, clip(service.inject["database"] or call.database)
            request = request.but(data={**data, "host": str(service.hosts[0]), "target": f"/{opened}"})
            lent = await vault.use(state, caller, request, f"services/{service.name}", own=True)
            timing.vault = monotonic() - timing.begun
            return await self._begin(SqlSession(self, vault, state, caller, lent, timing, over), service, lent, call)
        except BaseException as error:
            vault.meters.calls.refused(timing, result_of(error))
            over()
            if isinstance(error, KeyholeError):
                error.request_id = request.id
            raise

    def _admit(self, service: Service, call: SqlCall) -> None:
        """Judge what is asked of the database."""
        how = service.inject
        if len(self._open) >= self._databases.limits.sessions:
            raise RateLimited("there are as many sessions as may be", "close some, or raise sql_sessions")
        if call.replication and not how["replication"]:
            raise PolicyDenied(
                f"the service {service.name!r} lets nobody replicate the database", "its option replication would"
            )
        # libpq names the user's own database where none is named, and our users are services.
        if how["database"] and call.database not in {"", how["database"], service.name}:
            raise PolicyDenied(
                f"the service {service.name!r} opens the database {how['database']!r} only", "name that one, or none"
            )
        if call.scheme == "postgres" and not (how["database"] or call.database or call.replication):
            raise InvalidRequest("no database is named", "name one in the client's connection string")
        said = b"\0".join(
            [call.database.encode(), call.attributes, *(part for pair in call.parameters for part in pair)]
        )
        if call.token and call.token in said:
            raise PolicyDenied(
                "the session carries the token of its own caller, which no database may see", "send it as password only"
            )

    async def _begin(self, session: SqlSession, service: Service, lent: Lent, call: SqlCall) -> SqlStream:
        """Connect, log in and begin to stream; a failure ends the session."""
        self._open.add(session)
        try:
            _require_same(service, lent.service)
            loan = Loan(service, lent.secrets, lent.intent, self._resources.scrubbers)
            account = _account(service, loan, call)
            host = service.hosts[0]
            authority = Authority(host.host, host.port)
            guard = self._resources.guard(service.allow_addresses)
            destination = Destination(authority, guard, needs_tls(service.inject["sslmode"], host.host))
            self._resources.live.add(session)
            session.task = asyncio.current_task()
            begun = monotonic()
            try:
                line = await self._connect(service, destination, account, call)
            except asyncio.CancelledError:
                if session.reason is not None and session.task is not None and not session.task.uncancel():
                    raise session.reason from None
                raise
            finally:
                session.timing.connect += monotonic() - begun
                session.task = None
            session.stop = partial(line.stop, destination)
            return self._flow(session, line, loan, account)
        except BaseException as error:
            session.end(error)
            raise

    async def _connect(self, service: Service, destination: Destination, account: Account, call: SqlCall) -> Line:
        how = service.inject
        if call.scheme == "postgres":
            return await self._databases.postgres(destination, account, call)
        if not how["local_infile"]:
            call = replace(call, capabilities=call.capabilities & ~packets.LOCAL_FILES)
        talk = MysqlTalk(replication=how["replication"], files=how["local_infile"])
        return await self._databases.mysql(destination, account, call, talk)

    def _flow(self, session: SqlSession, line: Line, loan: Loan, account: Account) -> SqlStream:
        scrubber = self._resources.scrubbers.get(loan.secrets(), _derived(account))
        opening = scrubber.text(line.opening) if line.opening else b""
        if line.cancels:
            session.ours = self._new_key()
            self._keys[session.ours] = session
            opening += messages.message(b"K", session.ours)
        stream = SqlStream(
            line.wire, line.talk, scrubber, self._databases.limits, session.end, opening + line.ready, session.in_turn
        )
        session.stream = session.flowing = stream
        return stream

    def _new_key(self) -> bytes:
        """Process and key for the client's cancel requests, which are not those of the server."""
        while True:
            key = (secrets.randbits(31) | 1).to_bytes(4) + secrets.token_bytes(4)
            if key not in self._keys:
                return key

    def over(self, session: SqlSession, *, busy: bool) -> None:
        """A session has ended: what it left behind is ended too."""
        self._resources.live.discard(session)
        self._open.discard(session)
        if session.ours:
            self._keys.pop(session.ours, None)
        self._after.begin(self._clear_away(session, busy=busy))

    async def _clear_away(self, session: SqlSession, *, busy: bool) -> None:
        """Stop what the database still does for nobody, and take back the lease."""
        if busy and session.stop is not None:
            with contextlib.suppress(KeyholeError):
                await session.stop()
        await session.take_back()

    async def cancel(self, token: bytes | None, key: bytes, remote: str, *, here: bool = False) -> None:
        """Stop what the database does in a session.

        Args:
            token: of who asks; ``None`` where the key alone says it, as PostgreSQL's protocol has it.
            key: process and key that the session's client was given.
            remote: address of who asks.
            here: look for it in this process only.

        Raises:
            PolicyDenied: there is no such session of this caller.
        """
        if key not in self._keys and self.elsewhere is not None and not here:
            await self.elsewhere(token, key, remote)
            return
        session = self._keys.get(key)
        if session is not None and token is not None:
            vault = self._node.open_vault()
            request = Request(token, Operation.USE, "services", {}, "", remote, new_request_id())
            known = vault.recognise(token) or await authenticate(vault, request)
            if _who(known[1]) != _who(session.caller):
                session = None
        if session is None or session.stop is None:
            raise PolicyDenied("a cancel request names no session of its caller", "it may have ended")
        await session.stop()

    async def settle(self) -> None:
        """Wait until what ended sessions left behind is ended too."""
        await self._after.settle()


def _who(caller: Caller) -> tuple[str, str, str]:
    return caller.org_id, caller.name, caller.holder


def _require_same(matched: Service, lent: Service) -> None:
    """What is lent for a new destination must not go to the old one."""
    if lent is not matched and lent.as_data() != matched.as_data():
        raise Conflict(f"the service {matched.name!r} was changed meanwhile", "connect again")


def _account(service: Service, loan: Loan, call: SqlCall) -> Account:
    """With what the session is opened. Raises ``InvalidRequest`` for a secret that cannot be a login."""
    values, how = loan.values, service.inject
    user = how["user"].encode() or values.get("username", b"")
    password = values.get("password", b"")
    if not user or not password or b"\0" in user + password:
        raise InvalidRequest(
            f"what the service {service.name!r} lends is no user name and password", "look at its secret"
        )
    return Account(user, password, how["database"] or call.database)


def _derived(account: Account) -> list[bytes]:
    """What databases keep of a password, and may show to who administers them."""
    md5 = hashlib.md5(account.password + account.user, usedforsecurity=False).hexdigest()
    sha1 = hashlib.sha1(
        hashlib.sha1(account.password, usedforsecurity=False).digest(), usedforsecurity=False
    ).hexdigest()
    return [md5.encode(), sha1.encode(), sha1.upper().encode()]


def _nothing() -> None:
    """Nothing was counted."""
