"""What a server asked over HTTP wants besides what it was sent: a token, another one, or one that allows more."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Any

from mcp.shared.exceptions import MCPError

from keyhole.core.challenge import Challenge, parse_challenge, plain_scopes
from keyhole.core.errors import ConsentRequired
from keyhole.net.ask import Heard

_MARK = "keyhole"
_MOST = 64


class Wanted(ConsentRequired):
    """A server wants other authorization.

    Attributes:
        renewable: it may be content with a newer token of the same consent.
    """

    renewable = False


class Wants:
    """The challenges of one session. They travel through the SDK under marks that no server can make up.

    Args:
        server: its name.
        authorized: whether it was sent a token of a connection.
    """

    def __init__(self, server: str, *, authorized: bool) -> None:
        self._server = server
        self._authorized = authorized
        self._heard: OrderedDict[str, Wanted] = OrderedDict()

    def note(self, heard: Heard) -> dict[str, str] | None:
        """The data of the error that stands for this answer; ``None`` for one that asks for nothing."""
        challenge = parse_challenge(heard.headers.get(b"www-authenticate", b"").decode("latin-1"))
        if heard.status == 401:
            wanted = self._no_token(challenge)
        elif heard.status == 403 and challenge.error == "insufficient_scope":
            wanted = self._no_scope(challenge)
        else:
            return None
        mark = secrets.token_hex(16)
        self._heard[mark] = wanted
        while len(self._heard) > _MOST:
            self._heard.popitem(last=False)
        return {_MARK: mark}

    def of(self, error: BaseException) -> Wanted | None:
        """What an error of the SDK stands for, if it is one of these."""
        data: Any = error.error.data if isinstance(error, MCPError) else None
        mark = data.get(_MARK) if isinstance(data, dict) else None
        return self._heard.pop(mark, None) if isinstance(mark, str) else None

    def _no_token(self, challenge: Challenge) -> Wanted:
        if not self._authorized:
            return Wanted(f"the server {self._server} wants authorization", self._login(challenge))
        wanted = Wanted(f"the server {self._server} takes its token no more", self._login(challenge))
        wanted.renewable = True
        return wanted

    def _no_scope(self, challenge: Challenge) -> Wanted:
        named = ", ".join(plain_scopes(challenge.scopes)) or "more scopes than its token has"
        return Wanted(f"the server {self._server} wants for this: {named}", self._login(challenge))

    def _login(self, challenge: Challenge) -> str:
        scopes = plain_scopes(challenge.scopes) if self._authorized else []
        return " ".join(["keyhole mcp server login", self._server, *(f"--scope {each}" for each in scopes)])
