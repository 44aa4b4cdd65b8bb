"""The server's side of a session's beginning in MySQL's protocol, where the server speaks first.

1. Who comes through a tunnel is let in whatever it answers: its tunnel brought the token.
2. Whoever else shows the token as the password in clear, over TLS or on this machine: what clients make of a password
   otherwise cannot be compared with what is known of a token.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from keyhole.core.errors import BadRequestFraming, InvalidRequest, KeyholeError, Unauthenticated
from keyhole.core.sql import SqlCall
from keyhole.faces.sql.door import Guest, Session, Sessions
from keyhole.faces.sql.refusal import reason_of, state_of
from keyhole.net.http1.wire import NEVER
from keyhole.net.mysql import packets
from keyhole.net.mysql.packets import Response

_NONCE = 20  # bytes, of which none is zero
# SQLSTATE to the server's error code and the SQLSTATE that goes with it ("Server Error Message Reference").
_CODES = {
    "28P01": (1045, "28000"),
    "28000": (1045, "28000"),
    "42000": (1049, "42000"),
    "53300": (1040, "08004"),
    "08004": (1040, "08004"),
    "08001": (1429, "HY000"),
    "57P03": (1053, "08S01"),
    "08P01": (1043, "08S01"),
}


class Talker:
    """Speaks with one client up to its session.

    Args:
        guest: the client.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._sequence = 0

    async def admit(self, sessions: Sessions) -> Session:
        """Hear what a client wants, and open its session.

        Raises:
            ClientGoneError, BadRequestFraming, KeyholeError: it gets none.
        """
        guest = self._guest
        nonce = bytes(secrets.choice(range(1, 128)) for _ in range(_NONCE))
        self._say(packets.greeting(secrets.randbits(31), nonce, tls=guest.tls is not None))
        heard = await self._hear()
        if packets.asks_for_tls(heard):
            if guest.tls is None:
                raise BadRequestFraming("the client wants TLS, which was not offered")
            await guest.secure(guest.tls)
            heard = await self._hear()
        said = packets.read_response(heard)
        call = _read(guest, said)
        if not call.token:
            call = replace(call, token=await self._ask_for_token(said, nonce))
        guest.wire.read_deadline = NEVER
        session = await sessions.open(call)
        self._say(session.opening[packets.HEAD :])
        return session

    def refuse(self, error: KeyholeError) -> bytes:
        """An ERR packet."""
        code, state = _CODES.get(state_of(error), (1105, "HY000"))
        more = f" ({error.hint})" if error.hint else ""
        about = f" [request {error.request_id}]" if error.request_id else ""
        return packets.packet(self._sequence, packets.error(code, state, f"{reason_of(error)}{more}{about}"))

    def _say(self, payload: bytes) -> None:
        self._guest.wire.write(packets.packet(self._sequence, payload))
        self._sequence += 1

    async def _hear(self) -> bytes:
        head = await self._guest.take(packets.HEAD)
        length = int.from_bytes(head[:3], "little")
        if length > packets.MAX_LOGIN or head[3] != self._sequence:
            raise BadRequestFraming("what came is no answer to the greeting", "connect with a client of MySQL")
        self._sequence += 1
        return await self._guest.take(length)

    async def _ask_for_token(self, said: Response, nonce: bytes) -> bytes:
        secure = self._guest.wire.tls is not None
        if self._guest.tls is not None and not secure:
            raise Unauthenticated("a token is shown over TLS only on this listener", "let the client verify it")
        if secure and said.plugin == packets.CACHING:  # under TLS this one says the password when it is asked to
            self._say(packets.switch(packets.CACHING, nonce))
            await self._hear()
            self._say(b"\x01\x04")
        else:
            self._say(packets.switch(packets.CLEAR, nonce))
        return (await self._hear()).removesuffix(b"\0")


def _read(guest: Guest, said: Response) -> SqlCall:
    """The session that a client's answer asks for."""
    try:
        user, database = said.user.decode(), said.database.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the name of the user or of the database is not UTF-8") from None
    call = guest.call
    return replace(
        call,
        service=call.service or ("" if call.authority is not None else user),
        database=database,
        capabilities=said.capabilities & packets.PASSED,
        charset=said.charset,
        attributes=said.attributes,
    )
