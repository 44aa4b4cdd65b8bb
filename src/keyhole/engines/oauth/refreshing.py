"""New access tokens before the old ones end, and when an API refuses one: asked for once, whoever needs them.

    claim (durable) - ask - store what came (durable) - lend

1. Of the tasks of a process one asks for a connection, in a task of its own that nobody who waits can cut off; of
   several processes the one whose claim the store took. The others wait for what it brings.
2. What came is stored before anybody gets it. An answer that comes after its claim was overtaken is not used.
3. A claim that nobody finished belongs to a process that died between the two: an answer may be lost, and with it a
   single-use refresh token. The request is repeated once with the old one, which some providers take for a while; when
   that is lost too, or the provider says no, somebody has to consent anew, and is told.
4. While a token is good it is lent, whatever becomes of the request for the next one.
5. A definite no ends the asking. All else is tried again ever more rarely, or when the provider says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import random
import time
from dataclasses import replace
from typing import Any

from keyhole.core.errors import (
    Conflict,
    ConsentRequired,
    InvalidRequest,
    KeyholeError,
    NotFound,
    TargetFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from keyhole.core.request import Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.engines.oauth import connection as connections
from keyhole.engines.oauth import tokens as stored
from keyhole.engines.oauth.asking import Answer, Away, Declined, Granted, ask_tokens, end_token, renewal
from keyhole.engines.oauth.connection import Connection
from keyhole.engines.oauth.tokens import CLAIM, CONNECTED, CONSENT, NONE, REFUSED, Tokens, path_of
from keyhole.net.together import Together

_FIRST_PAUSE = 5.0  # seconds after the first failure; doubled with each
_LONGEST_PAUSE = 900.0
_REFUSED_PAUSE = 3600.0  # seconds until a client that the provider refused is tried again
_PATIENCE = 3.0  # seconds that somebody waits who could have the old token as well
_WAIT = 60.0  # seconds that somebody waits who could not
_LOOK = 0.05, 0.5  # seconds between looks at what another process does: at first, at most
_PUSHED = 60.0  # seconds in which a token that an API refused is not replaced again; doubled with each
_LAST = 15.0  # seconds that a request under way may still take when the vault is closed
_RETRIES = 20


class Refreshing:
    """The refreshes of one mount in this process."""

    def __init__(self) -> None:
        self._running: Together[str, None] = Together()

    async def lend(self, context: Context, path: str, field: str) -> Secret:
        """The access token of a connection, good for a while yet where its provider gives one.

        Raises:
            NotFound: there is no such connection or field.
            ConsentRequired: somebody has to connect it.
            KeyholeError: it has ended, and the provider gives no other now.
        """
        if field not in {"value", "access_token"}:
            raise NotFound(f"a connection has no field {field[:40]!r}", "it lends access_token")
        return stored.lent((await self.current(context, path))[1])

    async def relend(self, context: Context, path: str, field: str, refused: bytes) -> Secret:
        """What there is instead of an access token that an API has refused; the same one where there is no other."""
        name, now = path, context.now
        found, _ = await stored.load(context, name)
        if not hmac.compare_digest(found.access.encode(), refused) or not await self._pushable(context, name, found):
            return await self.lend(context, path, field)
        pause = min(_PUSHED * 2**found.pushes, _REFUSED_PAUSE)
        if found.pushed and now < found.pushed + pause:
            return stored.lent(found)
        with contextlib.suppress(KeyholeError):
            await self._renewed(context, name, found, pushed=True)
        return await self.lend(context, path, field)

    async def current(self, context: Context, name: str) -> tuple[Connection, Tokens]:
        """A connection and its tokens, refreshed where it is time. Raises as ``lend``."""
        connection, found, _ = await _load(context, name)
        if not found.fresh(context.now) or found.cut_off(context.now):
            found = await self._good(context, connection, found)
        return connection, found

    async def _good(self, context: Context, connection: Connection, found: Tokens) -> Tokens:
        """Tokens whose access token can be lent."""
        name, usable = connection.name, found.usable(context.now)
        if found.status == CONSENT or (found.status == NONE and connection.by_person):
            if usable:
                return found
            raise no_consent(connection, found)
        if not usable or context.now >= found.next:
            failure: KeyholeError | None = None
            if context.now >= found.next or found.claimed:
                try:
                    await self._renewed(context, name, found, patience=_PATIENCE if usable else _WAIT)
                except KeyholeError as error:
                    failure = error
                found, _ = await stored.load(context, name)
            if not found.usable(context.now):
                raise _unusable(connection, found, context.now) from failure
        return found

    async def refresh(self, context: Context, call: Call) -> Reply:
        """New tokens now, also where the provider has said no before."""
        name = call.params["name"]
        connection, found, revision = await _load(context, name)
        if connection.by_person and not found.refresh:
            raise InvalidRequest("this connection has no refresh token", connection.next_step())
        if (found.status in {CONSENT, REFUSED} or found.next > context.now) and found.claimed <= context.now:
            found = stored.forgiven(found)
            await context.storage.change([(path_of(name), found.encode(), revision, context.now)])
        await self._renewed(context, name, found)
        after, _ = await stored.load(context, name)
        if not after.usable(context.now) or after.brought == found.brought:
            raise _unusable(connection, after, context.now)
        return Reply(state(connection, after, context.now))

    async def due(self, context: Context, name: str) -> str:
        """Refresh what is due, or tell somebody that a connection needs help. Raises ``KeyholeError`` to say so."""
        connection, found, revision = await _load(context, name)
        due = found.due(renewable=_renewable(connection, found))
        if due is None or due > context.now:  # what it was due for is done
            await _write(context, name, found, revision, connection)
            return ""
        if found.status in {CONSENT, REFUSED} and not found.claimed:
            return await self._remind(context, connection, found, revision)
        if found.soon() <= context.now or found.claimed:
            await self._renewed(context, name, found)
        return f"token/{name}"

    async def settle(self) -> None:
        """Wait for the requests under way: an answer that nobody stores is lost."""
        await self._running.settle(_LAST)

    async def _remind(self, context: Context, connection: Connection, found: Tokens, revision: int) -> str:
        told = replace(found, alarmed=context.now)
        due = told.due(renewable=False)
        await context.storage.change([(path_of(connection.name), told.encode(), revision, due)])
        error = _unusable(connection, found, context.now)
        error.alarming = True
        raise error

    async def _pushable(self, context: Context, name: str, found: Tokens) -> bool:
        connection = await connections.load(context, name)
        return connection is not None and found.status == CONNECTED and _renewable(connection, found)

    async def _renewed(
        self, context: Context, name: str, old: Tokens, *, pushed: bool = False, patience: float = _WAIT
    ) -> None:
        """Wait until there are other tokens than ``old``, or nobody asks for them any more.

        Raises:
            UpstreamTimeout: patience has ended; the request goes on.
            KeyholeError: why the request of this process failed.
        """
        try:
            async with asyncio.timeout(patience):  # a failure that nobody waits for stands in the entry
                await self._running.wait(name, lambda: _renew(context, name, old, pushed=pushed))
        except TimeoutError:
            raise UpstreamTimeout(f"the provider of {name!r} has not answered yet", "try again") from None


async def _renew(context: Context, name: str, old: Tokens, *, pushed: bool) -> None:
    """Ask for other tokens than ``old``, unless somebody else does, or has done so."""
    began, look = time.monotonic(), _LOOK[0]
    while (elapsed := time.monotonic() - began) < _WAIT:
        now = context.now + elapsed
        connection, found, revision = await _load(context, name)
        if found.brought != old.brought or found.status == CONSENT or now < found.next:
            return
        if found.claimed > now:
            await asyncio.sleep(look)
            look = min(look * 2, _LOOK[1])
            continue
        if found.claimed and found.again:  # twice a process has died over it
            why = "twice the answer of its provider was lost, and the refresh token with it"
            await _write(context, name, found.ended(CONSENT, why, now), revision, connection)
            return
        again = bool(found.claimed)
        claim = replace(found, claimed=now + CLAIM, again=again, lost=found.lost or again, number=found.number + 1)
        with contextlib.suppress(Conflict):  # somebody else was quicker
            await _write(context, name, claim, revision, connection)
            await _ask(context, connection, claim, revision + 1, now, pushed=pushed)
            return


async def _ask(
    context: Context, connection: Connection, claim: Tokens, revision: int, now: float, *, pushed: bool
) -> None:
    """Make the request that was claimed, and store what came of it. Raises why it failed."""
    failure: KeyholeError | None = None
    answer: Answer | None = None
    try:
        if connection.by_person and not claim.refresh:
            answer = Declined("invalid_grant")
        else:
            answer = await ask_tokens(context, connection, renewal(connection, claim.refresh, now), now)
    except KeyholeError as error:
        failure = error
    if isinstance(answer, Away):
        failure = answer.error()
    elif isinstance(answer, Granted) and not answer.access:
        failure = UpstreamUnreachable(answer.why, f"check the connection: keyhole oauth show {connection.name}")
    after = settled(connection, claim, answer or Away(failure.reason if failure else "", lost=True), now)
    if pushed:
        after = _after_push(claim, after, now)
    try:
        await _write(context, connection.name, after, revision, connection)
    except Conflict:
        await _overtaken(context, connection, claim, after, now)
    if failure is not None:
        raise failure


def _after_push(claim: Tokens, after: Tokens, now: float) -> Tokens:
    """The same where an API has refused the old access token: that one is not lent as if it were good."""
    if after.status in {CONSENT, REFUSED}:
        return replace(after, access="")
    if after.access == claim.access:
        return after
    recent = claim.pushed and now < claim.pushed + _REFUSED_PAUSE
    return replace(after, pushed=now, pushes=claim.pushes + 1 if recent else 0)


def settled(connection: Connection, claim: Tokens, answer: Answer, now: float) -> Tokens:
    """What is to be stored after an answer."""
    if isinstance(answer, Granted) and answer.access:
        return granted(connection, claim, answer, now)
    if isinstance(answer, Declined):
        if answer.consent and connection.by_person:
            return claim.ended(CONSENT, _why_no(answer, claim), now)
        after = claim.ended(REFUSED, f"the provider refuses the client: {answer.code}", now)
        told = claim.alarmed if claim.status == REFUSED else 0.0
        return replace(after, alarmed=told, next=now + _REFUSED_PAUSE, failures=claim.failures + 1)
    pause = min(_FIRST_PAUSE * 2 ** min(claim.failures, 16), _LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - it spreads load
    kept = replace(claim, claimed=0.0, again=False, failures=claim.failures + 1)
    if isinstance(answer, Granted):
        return replace(kept, refresh=answer.refresh, lost=False, why=answer.why, next=now + pause)
    lost = claim.lost or answer.lost
    return replace(kept, lost=lost, why=answer.reason, next=now + max(pause, answer.retry_after))


def granted(connection: Connection, before: Tokens, answer: Granted, now: float) -> Tokens:
    """The tokens of an answer; without a new refresh token the old one goes on (RFC 6749 section 6)."""
    scopes = answer.scopes if answer.scopes is not None else before.scopes or tuple(connection["scopes"])
    return replace(
        before,
        access=answer.access,
        until=now + answer.life if answer.life else 0.0,
        obtained=max(now, before.obtained + 0.001),  # no two answers look alike
        refresh=answer.refresh or before.refresh,
        scopes=scopes,
        status=CONNECTED,
        why="",
        claimed=0.0,
        again=False,
        lost=False,
        failures=0,
        next=0.0,
        alarmed=0.0,
    )


async def _overtaken(context: Context, connection: Connection, claim: Tokens, after: Tokens, now: float) -> None:
    """Somebody wrote after our claim: a setting was changed, the claim ran out, or it is another consent by now.

    What we have counts where nobody else has asked since, or where what they have is known to be dead.
    """
    for _ in range(_RETRIES):
        try:
            latest, found, revision = await _load(context, connection.name)
        except NotFound:
            break
        if (latest["id"], found.family) != (connection["id"], claim.family):
            break
        if found.refresh != claim.refresh or (found.number != claim.number and found.status != CONSENT):
            return
        with contextlib.suppress(Conflict):
            await _write(context, connection.name, replace(after, number=found.number), revision, latest)
            return
    if after.refresh != claim.refresh and connection["revoke_url"]:
        with contextlib.suppress(KeyholeError):
            await end_token(context, connection, after.refresh, "refresh_token", now)


async def _write(context: Context, name: str, what: Tokens, revision: int, connection: Connection) -> None:
    """Store tokens where the connection is still the one that they are for. Raises ``Conflict``."""
    due = what.due(renewable=_renewable(connection, what))
    checks = [(f"c/{name}", connection.revision)]
    await context.storage.change([(path_of(name), what.encode(), revision, due)], (), checks)


async def _load(context: Context, name: str) -> tuple[Connection, Tokens, int]:
    """A connection, its tokens and the revision of theirs, in one snapshot. Raises ``NotFound``."""
    item, held = await context.storage.get(f"c/{name}", path_of(name))
    if item.data is None:
        raise NotFound(f"there is no connection {name[:64]!r}", "keyhole oauth list")
    return connections.read(name, item), stored.decode(held.data), held.revision


def _renewable(connection: Connection, found: Tokens) -> bool:
    return bool(found.refresh) or not connection.by_person


def _why_no(answer: Declined, claim: Tokens) -> str:
    lost = ", after an answer of it was lost" if claim.lost else ""
    if not claim.refresh:
        return "its access token has ended, and there is no refresh token"
    return f"the provider does not take the refresh token any more{lost}: {answer.code}"


def no_consent(connection: Connection, found: Tokens) -> KeyholeError:
    """Why a connection lends nothing before a person has consented."""
    if found.status == NONE:
        return ConsentRequired(f"{connection.name!r} is not connected yet", connection.next_step())
    return ConsentRequired(f"{connection.name!r} needs consent again: {found.why}", connection.next_step())


def _unusable(connection: Connection, found: Tokens, now: float) -> KeyholeError:
    """Why a connection lends nothing now."""
    if found.status in {CONSENT, NONE} and connection.by_person:
        return no_consent(connection, found)
    if found.status == REFUSED:
        return TargetFailed(
            f"{connection.name!r}: {found.why}", f"correct it, then: keyhole oauth refresh {connection.name}"
        )
    why = found.why or "its provider has not answered yet"
    error = UpstreamUnreachable(f"{connection.name!r} has no token that is good now: {why}", "it is tried again")
    error.retry_after = max(int(found.next - now), 0)
    return error


def _next_step(connection: Connection, status: str) -> str:
    if status == REFUSED:
        return f"correct it, then: keyhole oauth refresh {connection.name}"
    return connection.next_step() if status in {CONSENT, NONE} else ""


def state(connection: Connection, found: Tokens, now: float) -> dict[str, Any]:
    """How a connection stands, without a value."""
    status = found.status if connection.by_person or found.status != NONE else "not asked yet"
    if found.status == CONNECTED and not found.usable(now):
        status = "expired"
    return {
        "status": status,
        "why": found.why,
        "next_step": _next_step(connection, status),
        "scopes_granted": list(found.scopes),
        "scopes_missing": connection.missing_scopes(found.scopes) if found.obtained else [],
        "expires_in": max(int(found.until - now), 0) if found.until else 0,
        "refreshes": bool(_renewable(connection, found)),
        "requests": found.number,
        "failures": found.failures,
        "tried_again_in": max(int(found.next - now), 0),
    }
