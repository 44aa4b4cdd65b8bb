"""One client, from its first byte to its last."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from keyhole.core.errors import BadRequestFraming, InternalError, KeyholeError, fault_place
from keyhole.core.message import Stream
from keyhole.core.sql import SqlCall
from keyhole.faces.sql import mysql, postgres
from keyhole.faces.sql.door import ClientGoneError, Guest, Sessions, SqlListenerLimits
from keyhole.net.carry import carry
from keyhole.net.http1.wire import NEVER, Wire

_log = logging.getLogger("keyhole.sql")


class SqlFace:
    """Serves clients of databases on connections that others accept.

    Args:
        sessions: decides and acts.
        note_refusal: records what was refused before there was anything to decide.
        limits: bounds on clients.
    """

    def __init__(
        self,
        sessions: Sessions,
        note_refusal: Callable[[KeyholeError, str], None],
        limits: SqlListenerLimits | None = None,
    ) -> None:
        self.limits = limits or SqlListenerLimits()
        self._sessions = sessions
        self._note_refusal = note_refusal

    async def serve(
        self,
        wire: Wire,
        call: SqlCall,
        begun: Callable[[Stream], None] = lambda _: None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Serve one client to its end.

        Args:
            wire: the connection, of which nothing was read.
            call: its scheme, its address and what its tunnel says of it; without a token it has to show one.
            begun: told when its session has begun.
            tls: of a listener that offers TLS.

        Raises:
            OSError, ssl.SSLError: the connection broke.
        """
        guest = Guest(wire, call, self._sessions.in_turn, tls, begun)
        talk: postgres.Talker | mysql.Talker
        talk = mysql.Talker(guest) if call.scheme == "mysql" else postgres.Talker(guest)
        wire.read_deadline = wire.loop.time() + self.limits.login
        try:
            session = await talk.admit(self._sessions)
        except ClientGoneError:
            return
        except TimeoutError:
            error: KeyholeError = BadRequestFraming("the client did not log in in time")
            self._note_refusal(error, call.remote)
            wire.abort()
            return
        except BadRequestFraming as framing:
            self._note_refusal(framing, call.remote)
            await self._turn_away(wire, talk.refuse(framing))
            return
        except KeyholeError as refusal:
            await self._turn_away(wire, talk.refuse(refusal))
            return
        except (OSError, asyncio.CancelledError):
            raise
        except Exception as fault:  # noqa: BLE001 - a fault of ours is told without values, and logged
            _log.error("internal error: %s", fault_place(fault))
            await self._turn_away(wire, talk.refuse(InternalError("the broker failed", "see the server's log")))
            return
        wire.read_deadline = NEVER
        if session is not None:
            begun(session)
            await carry(wire, session, self.limits.write)

    async def _turn_away(self, wire: Wire, message: bytes) -> None:
        """Say why, and wait a moment for the client to read it."""
        if not message:
            return
        wire.write(message)
        wire.end()
        wire.read_deadline = wire.loop.time() + self.limits.linger
        try:
            while not wire.eof:
                wire.buffer = b""
                await wire.wait()
        except TimeoutError:
            pass
