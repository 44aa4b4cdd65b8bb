"""The server's side of a session's beginning in PostgreSQL's protocol.

1. Encryption is refused on a listener without TLS, as a server without it does, and clients go on in clear.
2. Who brings no token with a tunnel shows it as the password, over TLS or on this machine.
3. A cancel request is no session: it names one by its key, and is answered with nothing.
"""

from __future__ import annotations

from dataclasses import replace

from keyhole.core.errors import BadRequestFraming, InvalidRequest, KeyholeError, Unauthenticated
from keyhole.core.sql import SqlCall
from keyhole.faces.sql.door import Guest, Session, Sessions
from keyhole.faces.sql.refusal import reason_of, state_of
from keyhole.net.http1.wire import NEVER
from keyhole.net.postgres import messages
from keyhole.net.postgres.messages import Startup

_ROUNDS = 3  # encryption of two kinds is asked for, then the session
_OURS = frozenset({b"user", b"database", b"replication"})


class Talker:
    """Speaks with one client up to its session.

    Args:
        guest: the client.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def admit(self, sessions: Sessions) -> Session | None:
        """Hear what a client wants, and open its session; ``None`` when it wanted none.

        Raises:
            ClientGoneError, BadRequestFraming, KeyholeError: it gets none.
        """
        guest = self._guest
        wanted = await _startup(guest)
        if wanted.code == messages.CANCEL_REQUEST:
            await sessions.cancel(guest.call.token or None, wanted.key, guest.call.remote)
            return None
        if wanted.code != messages.VERSION or wanted.options:
            guest.wire.write(messages.negotiate(wanted.options))
        call = _read(guest, wanted)
        if not call.token:
            call = replace(call, token=await _ask_for_token(guest))
        guest.wire.read_deadline = NEVER
        session = await sessions.open(call)
        guest.wire.write(messages.AUTHENTICATION_OK + session.opening)
        return session

    def refuse(self, error: KeyholeError) -> bytes:
        """An ErrorResponse."""
        detail = f"request {error.request_id}" if error.request_id else ""
        return messages.error(state_of(error), reason_of(error), hint=error.hint, detail=detail)


async def _startup(guest: Guest) -> Startup:
    """What the client sends first, after its requests for encryption were answered."""
    for _ in range(_ROUNDS):
        head = await guest.take(4)
        length = messages.startup_length(head)
        wanted = messages.read_startup(head + await guest.take(length - 4))
        if wanted.code == messages.SSL_REQUEST and guest.tls is not None and guest.wire.tls is None:
            if guest.wire.buffer:  # a client waits for the answer (CVE-2021-23214)
                raise BadRequestFraming("the client said something before TLS began")
            guest.wire.write(b"S")
            guest.wire.flush()
            await guest.secure(guest.tls)
        elif wanted.code in {messages.SSL_REQUEST, messages.GSSENC_REQUEST}:
            guest.wire.write(b"N")
        else:
            return wanted
    raise BadRequestFraming("the client asks for encryption again and again")


def _read(guest: Guest, wanted: Startup) -> SqlCall:
    """The session that a startup message asks for."""
    given = dict(wanted.parameters)
    try:
        user, database = (given.get(name, b"").decode() for name in (b"user", b"database"))
    except UnicodeDecodeError:
        raise InvalidRequest("the name of the user or of the database is not UTF-8") from None
    call = guest.call
    rest = tuple(pair for pair in wanted.parameters if pair[0] not in _OURS and not pair[0].startswith(b"_pq_."))
    replicates = given.get(b"replication", b"false").lower() not in {b"false", b"off", b"no", b"0", b""}
    if replicates:
        rest = (*rest, (b"replication", given[b"replication"]))
    return replace(
        call,
        service=call.service or ("" if call.authority is not None else user),
        database=database,
        parameters=rest,
        replication=replicates,
    )


async def _ask_for_token(guest: Guest) -> bytes:
    if guest.tls is not None and guest.wire.tls is None:
        raise Unauthenticated("a token is shown over TLS only on this listener", "connect with sslmode=verify-full")
    guest.wire.write(messages.CLEARTEXT_PASSWORD)
    head = await guest.take(5)
    length = int.from_bytes(head[1:])
    if head[:1] != b"p" or not 5 <= length <= messages.MAX_PASSWORD:
        raise BadRequestFraming("the client does not answer the question for a password")
    return (await guest.take(length - 4)).removesuffix(b"\0")
