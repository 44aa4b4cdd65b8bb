"""The HTTP API: HTTP to ``Request``, ``Reply`` to HTTP. It decides nothing."""

from __future__ import annotations

import html
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

from keyhole.config import ApiLimits
from keyhole.core.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    KeyholeError,
    NotFound,
    Unauthenticated,
    fault_place,
)
from keyhole.core.identity import ROOT_ORG
from keyhole.core.request import Credential, Operation, Request
from keyhole.faces.api import reading, status
from keyhole.faces.api.envelope import JSON, Answer, render, render_error
from keyhole.faces.api.reading import Asker, Scope
from keyhole.vault import namespaces
from keyhole.vault.exposition import heading
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import UnsupportedOperation
from keyhole.vault.node import Node
from keyhole.vault.shares import Held

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Ceremony = Callable[[str, str, Mapping[str, Any], Mapping[str, Any], Credential], Awaitable[Answer]]

_PREFIX = "/v1/"
_READY_FOR = 2.0
_SLASHES = re.compile(rb"/{2,}")
_STRANGERS_BODY = 64 * 1024  # bytes that are read before it is known who sends them
_OF_EACH = frozenset({"sys/health", "sys/leader"})  # of ``status.ROUTES``: what each worker says of itself
_log = logging.getLogger("keyhole.api")


class Api:
    """The ASGI application.

    Args:
        node: where requests go.
        limits: bounds on clients.
        hosts: names under which the API may be asked when it listens on loopback (a page in a browser must not reach
            it under a name that an attacker resolves to loopback); empty for any.
        trusted: CIDR blocks of proxies that say from where a request came.
        needs_header: requests below ``/v1/`` must have ``X-Vault-Request: true``, which no forged one has.

    Attributes:
        counts: answers by their status.
        ceremony: answers what takes several requests, such as unsealing by shares; another worker's, where there are
            several.
        others: adds the figures of other workers to this one's.
    """

    def __init__(
        self,
        node: Node,
        limits: ApiLimits | None = None,
        *,
        hosts: frozenset[str] = frozenset(),
        trusted: tuple[str, ...] = (),
        needs_header: bool = False,
    ) -> None:
        self._node = node
        self._limits = limits or ApiLimits()
        self._hosts = hosts
        self._trusted = trusted
        self._needs_header = needs_header
        self._ready_until = 0.0
        self.counts: dict[int, int] = {}
        self.ceremony: Ceremony = partial(status.serve, node)
        self.others: Callable[[str], Awaitable[str]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        code, headers, body = await self._serve(scope, receive)
        self.counts[code] = self.counts.get(code, 0) + 1
        if code != 204:
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _serve(self, scope: Scope, receive: Receive) -> Answer:
        path, remote = "", str((scope.get("client") or ("",))[0])
        held: list[Held] = []
        try:
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            if b"//" in raw and (clean := _SLASHES.sub(b"/", raw)).startswith(_PREFIX.encode()):
                return _redirect(clean, scope)
            memo = scope.get("memo", {})
            asker: Asker | None = memo.get("asker")
            if asker is None or asker.source is not scope["headers"]:
                headers = reading.headers_of(scope)
                remote = reading.remote_of(scope, headers, self._trusted)
                self._check_origin(headers)
                asker = memo["asker"] = reading.asker_of(scope, headers, remote)
            remote = asker.remote
            path = reading.path_of(raw)
            if not path.startswith(_PREFIX):
                return await self._outside(path)
            path = path.removeprefix(_PREFIX)
            if self._needs_header:
                reading.require_header(asker.headers)
            query = reading.query_of(scope, self._limits)
            path = reading.help_path(scope["method"], path, query) or path
            if path in status.ROUTES:
                return await self._status(scope, asker, path, query, receive)
            request = await self._request(scope, asker, path, query, receive, held)
            path = request.path
            return render(await self._node.handle(request), path)
        except KeyholeError as error:
            if not error.request_id:  # it never came to the door, which would have recorded it
                self._node.note_refusal(error, remote)
            return render_error(error, path)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, no traceback and no silence towards a client
            _log.error("internal error: %s", fault_place(error))
            return render_error(InternalError("internal error", "see the server's log"), path)
        finally:
            for each in held:
                each.release()

    async def _status(self, scope: Scope, asker: Asker, path: str, query: dict[str, Any], receive: Receive) -> Answer:
        if asker.org not in {"", ROOT_ORG}:
            raise InvalidRequest("operation unavailable in namespaces", "ask without X-Vault-Namespace")
        raw = await self._body(receive, min(_STRANGERS_BODY, self._limits.body))
        body = reading.body_of(raw, asker.headers.get("content-type", ""), self._limits)
        serve = self.ceremony if path not in _OF_EACH else partial(status.serve, self._node)
        return await serve(scope["method"], path, body, query, asker.credential)

    async def _request(
        self, scope: Scope, asker: Asker, path: str, query: dict[str, Any], receive: Receive, held: list[Held]
    ) -> Request:
        operation = reading.operation_of(scope["method"], query)
        if operation is None:
            raise UnsupportedOperation("")
        headers = asker.headers
        kind = headers.get("content-type", "")
        reading.check_content_type(kind, operation)
        writes = operation is Operation.UPDATE or operation is Operation.PATCH
        body: dict[str, Any] = {}  # read once it is known who is asked for what
        request = Request(
            credential=asker.credential,
            operation=operation,
            path=reading.asked_path(path, operation),
            data=body if writes else query,
            org=asker.org,
            remote=asker.remote,
            id=new_request_id(),
            wrap_ttl=reading.wrap_ttl_of(headers) if "x-vault-wrap-ttl" in headers else 0,
            peer_certificate=scope.get("peer_certificate", b""),
            headers=headers,
            stated=asker.stated,
        )
        vault = self._node.open_vault()
        if namespaces.may_be_named(request):
            request = await namespaces.settle(vault, request)
        if request.path in status.ROUTES:
            raise InvalidRequest("operation unavailable in namespaces", "ask without the org in the path")
        if writes:
            body |= reading.body_of(await self._body(receive, self._limits.body, request, held), kind, self._limits)
        return request

    async def _require_known(self, request: Request) -> Held:
        """Refuse, and record, a request of somebody unknown before the rest of its body takes up memory."""
        vault = self._node.open_vault()
        try:
            return vault.shares.holding(
                *await vault.authenticate(request.credential, request.org, spend=False, remote=request.remote)
            )
        except Unauthenticated:
            try:
                await self._node.handle(request)
            except InvalidRequest:  # a login, which lacks what was not read
                raise BodyTooLarge(f"a login is larger than {_STRANGERS_BODY} bytes") from None
            raise

    async def _body(
        self, receive: Receive, limit: int, request: Request | None = None, held: list[Held] | None = None
    ) -> bytes:
        """A whole body; of who is unknown, only a short one. What is long is ``held`` for who sends it."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("the client went away")
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes")
            if size > _STRANGERS_BODY and request is not None and held is not None:
                if held:
                    held[0].take(len(part))
                else:
                    held.append(await self._require_known(request))
                    held[0].take(size)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def _outside(self, path: str) -> Answer:
        """Routes of the server itself, for orchestrators and monitoring."""
        if path == "/healthz":
            return 200, [(b"content-type", JSON)], b'{"ok":true}'
        if path == "/readyz":
            await self._check_ready()
            return 200, [(b"content-type", JSON)], b'{"ready":true}'
        if path == "/metrics":
            text = self.figures()
            if self.others is not None:
                text = await self.others(text)
            return 200, [(b"content-type", b"text/plain; version=0.0.4")], text.encode()
        raise NotFound("no handler for route", "the API is below /v1/")

    async def _check_ready(self) -> None:
        """Ready is who could write now; asked for often, it is tried at most every two seconds."""
        self._node.open_vault()
        if time.monotonic() >= self._ready_until:
            await self._node.check_ready()
            self._ready_until = time.monotonic() + _READY_FOR

    def figures(self) -> str:
        """What this process counts, in the text format of Prometheus."""
        lines = [
            *heading("keyhole_sealed", "gauge"),
            f"keyhole_sealed {int(self._node.vault is None)}",
            *heading("keyhole_api_responses_total", "counter"),
        ]
        lines += [f'keyhole_api_responses_total{{status="{code}"}} {n}' for code, n in sorted(self.counts.items())]
        if self._node.vault is not None:
            lines += self._node.vault.meters.totals()
        return "\n".join(lines) + "\n"

    def _check_origin(self, headers: dict[str, str]) -> None:
        """A page that resolves its own name to this machine, or posts here from elsewhere, is refused."""
        if not self._hosts:
            return
        origin = headers.get("origin", "")
        names = [headers.get("host", ""), *([origin.partition("://")[2]] if origin else [])]
        if any(_hostname(name) not in self._hosts for name in names):
            raise _ForeignOrigin("this API answers on its loopback address only", "use http://127.0.0.1:PORT")


class _ForeignOrigin(InvalidRequest):
    """Asked for under a foreign name, or by a page of another origin."""

    code = "policy_denied"
    status = 403


def _hostname(authority: str) -> str:
    return authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]


def _redirect(clean: bytes, scope: Scope) -> Answer:
    """To the same path with single slashes, as Vault does (Go's ``ServeMux``); it tells nothing of the vault."""
    query = scope["query_string"]
    headers = [(b"location", clean + (b"?" + query if query else b"")), (b"cache-control", b"no-store")]
    if scope["method"] not in {"GET", "HEAD"}:
        return 301, headers, b""
    link = html.escape(clean.decode("latin-1")).encode("latin-1")
    page = b'<a href="%b">Moved Permanently</a>.\n\n' % link
    return 301, [*headers, (b"content-type", b"text/html; charset=utf-8")], page


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
