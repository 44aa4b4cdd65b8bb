"""The client's side of a session's beginning: a generator that gives what to send and takes the server's messages.

1. A password in clear goes to a server under TLS only; MD5 and SCRAM prove it without saying it.
2. What the server says before it lets us in is read here and goes to nobody; its parameters are kept for the client.
3. Everything is bounded: what one message may have, what all of them may, and how long SCRAM computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field

from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.postgres import messages
from keyhole.net.postgres.scram import BOUND, PLAIN, Scram
from keyhole.net.refused import LoginRefused

MAX_LOGIN_MESSAGE = 64 * 1024
MAX_OPENING = 256 * 1024
"""Bytes of all parameters and notices that come before the first query."""

_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_ODD = "look at what listens there: its answers are not those of PostgreSQL"

Message = tuple[bytes, bytes]
"""Letter and payload."""


@dataclass(slots=True)
class Opened:
    """A session that can begin.

    Attributes:
        opening: the messages for the client: parameters and notices.
        key: process and key for a cancel request, as they stand on the wire; empty when there is none.
        ready: the ReadyForQuery with which it begins.
    """

    opening: bytes = b""
    key: bytes = field(default=b"", repr=False)
    ready: bytes = b""


@dataclass(frozen=True, slots=True)
class Login:
    """With what a session is opened.

    Attributes:
        user: name of the user.
        password: of that user.
        parameters: of the startup message besides, the database among them.
        secure: the connection is under TLS, and the server's name was verified.
        end_point: hash of the server's certificate (RFC 5929, section 4); empty without TLS.
        nonce: 18 random bytes, used once.
    """

    user: bytes
    password: bytes = field(repr=False)
    parameters: tuple[tuple[bytes, bytes], ...]
    secure: bool
    end_point: bytes
    nonce: bytes = field(repr=False)


def log_in(login: Login) -> Generator[bytes, Message, Opened]:
    """Open a session: give bytes to send, take one message of the server for each, until it is ready.

    Raises:
        LoginRefused: the server does not let us in.
        UpstreamUnreachable: it asks for what it does not get, or speaks another protocol.
    """
    answer = yield messages.startup([(b"user", login.user), *login.parameters])
    yield from _authenticate(login, answer)
    opened = Opened()
    while True:
        kind, payload = yield b""
        if kind in b"SN":
            opened.opening += messages.message(kind, payload)
            if len(opened.opening) > MAX_OPENING:
                raise UpstreamUnreachable("the database says too much before a session begins", _ODD)
        elif kind == b"K" and 8 <= len(payload) <= 260:
            opened.key = payload
        elif kind == b"Z" and len(payload) == 1:
            opened.ready = messages.message(kind, payload)
            return opened
        else:
            raise _unexpected(kind, payload)


def _authenticate(login: Login, answer: Message) -> Generator[bytes, Message, None]:
    scram: Scram | None = None
    proved = False
    for _ in range(8):
        kind, payload = answer
        if kind == b"N":  # a notice
            answer = yield b""
            continue
        if kind != b"R" or len(payload) < 4:
            raise _unexpected(kind, payload)
        code, rest = int.from_bytes(payload[:4]), payload[4:]
        if code == _OK:
            if scram is not None and not proved:
                raise UpstreamUnreachable("the database did not prove that it knows the password", _ODD)
            return
        if code == _CLEARTEXT:
            answer = yield _password(_in_clear(login))
        elif code == _MD5 and len(rest) == 4:
            answer = yield _password(md5_proof(login.user, login.password, rest))
        elif code == _SASL and scram is None:
            scram = _scram(login, rest)
            first = scram.first()
            answer = yield messages.message(b"p", scram.mechanism + b"\0" + len(first).to_bytes(4) + first)
        elif code == _SASL_CONTINUE and scram is not None:
            answer = yield messages.message(b"p", scram.final(rest))
        elif code == _SASL_FINAL and scram is not None:
            scram.verify(rest)
            proved = True
            answer = yield b""
        else:
            raise UpstreamUnreachable(
                "the database asks for a way of logging in that is not known here",
                "let its pg_hba.conf say scram-sha-256 for this user",
            )
    raise UpstreamUnreachable("the database does not come to an end of the login", _ODD)


def _in_clear(login: Login) -> bytes:
    if not login.secure:
        raise UpstreamUnreachable(
            "the database asks for the password in clear, and the connection has no TLS",
            "let its pg_hba.conf say scram-sha-256, or reach it over TLS",
        )
    return login.password + b"\0"


def _scram(login: Login, offered: bytes) -> Scram:
    mechanisms = offered.split(b"\0")[:16]
    if PLAIN not in mechanisms and not (BOUND in mechanisms and login.end_point):
        raise UpstreamUnreachable("the database offers no SCRAM-SHA-256", "update it, or ask its operator")
    return Scram(
        login.password, login.nonce, end_point=login.end_point, offered=BOUND in mechanisms, secure=login.secure
    )


def md5_proof(user: bytes, password: bytes, salt: bytes) -> bytes:
    """The answer to a question for an MD5 password, with its NUL."""
    inner = hashlib.md5(password + user, usedforsecurity=False).hexdigest().encode()
    return b"md5" + hashlib.md5(inner + salt, usedforsecurity=False).hexdigest().encode() + b"\0"


def _password(proof: bytes) -> bytes:
    return messages.message(b"p", proof)


def _unexpected(kind: bytes, payload: bytes) -> UpstreamUnreachable:
    if kind == b"E":
        return LoginRefused(messages.error_state(payload))
    return UpstreamUnreachable("what answers is no PostgreSQL that this protocol knows", _ODD)
