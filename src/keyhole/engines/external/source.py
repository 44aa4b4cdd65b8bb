"""A source as its kind sees it: settings, credentials, and a guarded, bounded way to ask it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from keyhole.core.errors import (
    AddressDenied,
    KeyholeError,
    TargetFailed,
    UpstreamTimeout,
    UpstreamTls,
    UpstreamUnreachable,
)
from keyhole.engines import Context
from keyhole.engines.external.logins import Login, Logins

_JSON = (("Content-Type", "application/json"),)
_REFUSALS = (401, 403)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and the JSON object of the body; empty where there is none.

    Attributes:
        status: of HTTP.
        data: what was answered. It may hold values: nothing of it goes into an error.
    """

    status: int
    data: Any = field(repr=False)

    def at(self, *keys: str | int) -> Any:
        """What lies below these keys; ``None`` where the answer has another form."""
        found = self.data
        for key in keys:
            if isinstance(found, dict) and isinstance(key, str):
                found = found.get(key)
            elif isinstance(found, list) and isinstance(key, int) and key < len(found):
                found = found[key]
            else:
                return None
        return found

    def text(self, *keys: str | int) -> str:
        """The text below these keys; empty where there is none."""
        found = self.at(*keys)
        return found if isinstance(found, str) else ""


@dataclass(frozen=True, slots=True)
class Source:
    """One source during one request.

    Attributes:
        name: of it.
        revision: of its entry; a login counts for one revision.
        options: its settings.
        credentials: what proves who asks.
        ca_cert: PEM of its CAs; empty for the system's.
        allow: exceptions of the guard.
        context: of the request.
        logins: those that are still good.
    """

    name: str
    revision: int
    options: Mapping[str, Any]
    credentials: Mapping[str, str] = field(repr=False)
    ca_cert: str
    allow: Sequence[str]
    context: Context
    logins: Logins

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        json_body: Any = None,
    ) -> Answer:
        """Send one request, and read the JSON of the answer.

        Raises:
            KeyholeError: the source is away, or the guard refuses its address. It names the source and never quotes it.
        """
        if json_body is not None:
            body, headers = json.dumps(json_body).encode(), (*headers, *_JSON)
        try:
            heard = await self.context.net.ask(
                method,
                url,
                headers=(("Accept", "application/json"), *headers),
                body=body,
                ca_pem=self.ca_cert,
                allow=self.allow,
            )
        except (UpstreamTimeout, UpstreamTls, UpstreamUnreachable) as error:
            raise type(error)(f"the source {self.name!r} cannot be asked: {error.reason}", self._next(error)) from None
        except AddressDenied as error:
            raise AddressDenied(
                f"the source {self.name!r} cannot be asked: {error.reason}",
                "an address that is not public takes sudo for whoever writes the source",
            ) from None
        try:
            data = json.loads(heard.body) if heard.body else {}
        except (ValueError, RecursionError):
            data = None
        if heard.status >= 500:
            host = urlsplit(url).hostname
            raise UpstreamUnreachable(
                f"the source {self.name!r} cannot answer: {host} says {heard.status}", "see that it runs; try again"
            )
        if data is None and heard.status < 300:
            raise UpstreamUnreachable(f"the source {self.name!r} does not answer in JSON", "check its address")
        return Answer(heard.status, data if data is not None else {})

    async def logged_in(
        self, log_in: Callable[[], Awaitable[Login]], ask: Callable[[str], Awaitable[Answer]]
    ) -> Answer:
        """Ask with a token that ``log_in`` gives; once more with a new one, when an older one is refused."""
        key = (self.name, self.revision)
        token, is_new = await self.logins.token(key, self.context.now, log_in)
        answer = await ask(token)
        if answer.status in _REFUSALS and not is_new:
            self.logins.forget(key, token)
            token, _ = await self.logins.token(key, self.context.now, log_in)
            answer = await ask(token)
        return answer

    def login_from(self, answer: Answer, *token: str, seconds: Sequence[str] = ()) -> Login:
        """The login that an answer gives. Raises ``TargetFailed`` where it gives none."""
        if answer.status >= 300 or not answer.text(*token):
            raise TargetFailed(
                f"the source {self.name!r} refuses the login ({answer.status})",
                f"write its credentials again, then: keyhole external test {self.name}",
            )
        lasts = answer.at(*seconds) if seconds else 0
        return Login(answer.text(*token), lasts if isinstance(lasts, int) else 0)

    def refusal(self, answer: Answer, needed: str) -> KeyholeError:
        """What to raise for a status that gives nothing.

        Args:
            answer: the answer.
            needed: what the identity needs there, for the hint.
        """
        if answer.status in _REFUSALS:
            return TargetFailed(f"the source {self.name!r} refuses this identity ({answer.status})", needed)
        if answer.status == 429:
            return TargetFailed(f"the source {self.name!r} was asked too often", "wait, or raise its limit there")
        return TargetFailed(f"the source {self.name!r} answers {answer.status}", "look at its log")

    def _next(self, error: KeyholeError) -> str:
        if isinstance(error, UpstreamTls):
            return "check its certificate, or name its CAs with ca_cert"
        return f"see that it runs and can be reached, then: keyhole external test {self.name}"
