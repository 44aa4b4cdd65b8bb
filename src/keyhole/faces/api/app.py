"""The HTTP API: HTTP to ``Request``, ``Reply`` to HTTP. It decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote

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
from keyhole.core.request import Anonymous, Credential, Operation, Request
from keyhole.core.strict_json import parse_object
from keyhole.faces.api import status
from keyhole.faces.api.envelope import JSON, Answer, render, render_error
from keyhole.vault.mounts import UnsupportedOperation
from keyhole.vault.node import Node

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_OPERATIONS = {
    "GET": Operation.READ,
    "HEAD": Operation.READ,
    "LIST": Operation.LIST,
    "POST": Operation.UPDATE,
    "PUT": Operation.UPDATE,
    "PATCH": Operation.PATCH,
    "DELETE": Operation.DELETE,
}
_PREFIX = "/v1/"
_ONCE = frozenset({"authorization", "host", "origin", "x-vault-namespace", "x-vault-token"})
_MERGE_PATCH = "application/merge-patch+json"
_READY_FOR = 2.0
_QUERY_FIELDS = 100
_STRANGERS_BODY = 64 * 1024  # bytes that are read before it is known who sends them
_log = logging.getLogger("keyhole.api")


class Api:
    """The ASGI application.

    Args:
        node: where requests go.
        limits: bounds on clients.
        hosts: names under which the API may be asked when it listens on loopback (a page in a browser must not reach
            it under a name that an attacker resolves to loopback); empty for any.
    """

    def __init__(self, node: Node, limits: ApiLimits | None = None, *, hosts: frozenset[str] = frozenset()) -> None:
        self._node = node
        self._limits = limits or ApiLimits()
        self._hosts = hosts
        self._ready_until = 0.0
        self.counts: dict[int, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        code, headers, body = await self._serve(scope, receive)
        self.counts[code] = self.counts.get(code, 0) + 1
        headers = [*headers, (b"content-length", str(len(body)).encode())] if code != 204 else headers
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _serve(self, scope: Scope, receive: Receive) -> Answer:
        path = ""
        try:
            headers = _headers(scope)
            self._check_origin(headers)
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            path = _path(raw)
            if not path.startswith(_PREFIX):
                return await self._outside(path)
            path = path.removeprefix(_PREFIX)
            if path in status.ROUTES:
                body = parse_object(await self._body(receive, min(_STRANGERS_BODY, self._limits.body)), self._limits)
                who = _credential(headers)
                return await status.serve(self._node, scope["method"], path, body, _query(scope), who)
            reply = await self._node.handle(await self._request(scope, headers, path, receive))
            return render(reply, path)
        except KeyholeError as error:
            if not error.request_id:  # it never came to the door, which would have recorded it
                self._node.note_refusal(error, str((scope.get("client") or ("",))[0]))
            return render_error(error, path)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, no traceback and no silence towards a client
            _log.error("internal error: %s", fault_place(error))
            return render_error(InternalError("internal error", "see the server's log"), path)

    async def _request(self, scope: Scope, headers: dict[str, str], path: str, receive: Receive) -> Request:
        method = scope["method"]
        operation = _OPERATIONS.get(method)
        if operation is None:
            raise UnsupportedOperation("")
        query = _query(scope)
        if operation is Operation.READ and query.pop("list", "") == "true":
            operation = Operation.LIST
        if operation is Operation.PATCH and headers.get("content-type", "").partition(";")[0] != _MERGE_PATCH:
            raise _UnsupportedMediaType("PATCH needs the content type application/merge-patch+json")
        client = scope.get("client") or ("", 0)
        writes = operation is Operation.UPDATE or operation is Operation.PATCH
        request = Request(
            credential=_credential(headers),
            operation=operation,
            path=path if operation is Operation.LIST else path.removesuffix("/"),
            data={} if writes else query,
            org=headers.get("x-vault-namespace", "").strip("/"),
            remote=str(client[0]),
        )
        if writes:
            if path.endswith("/"):
                raise InvalidRequest("cannot write to a path ending in '/'")
            body = await self._body(receive, self._limits.body, request)
            return replace(request, data=parse_object(body, self._limits))
        return request

    async def _require_known(self, request: Request) -> None:
        """Refuse, and record, a request of somebody unknown before the rest of its body takes up memory."""
        try:
            await self._node.open_vault().authenticate(
                request.credential, request.org, spend=False, remote=request.remote
            )
        except Unauthenticated:
            await self._node.handle(request)
            raise

    async def _body(self, receive: Receive, limit: int, request: Request | None = None) -> bytes:
        """A whole body; of who is unknown, only a short one."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("the client went away")
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes")
            if size > _STRANGERS_BODY and request is not None:
                await self._require_known(request)
                request = None
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
            return 200, [(b"content-type", b"text/plain; version=0.0.4")], self._metrics().encode()
        raise NotFound("no handler for route", "the API is below /v1/")

    async def _check_ready(self) -> None:
        """Ready is who could write now; asked for often, it is tried at most every two seconds."""
        self._node.open_vault()
        if time.monotonic() >= self._ready_until:
            await self._node.check_ready()
            self._ready_until = time.monotonic() + _READY_FOR

    def _metrics(self) -> str:
        lines = [
            "# TYPE keyhole_sealed gauge",
            f"keyhole_sealed {int(self._node.vault is None)}",
            "# TYPE keyhole_api_responses_total counter",
        ]
        lines += [f'keyhole_api_responses_total{{status="{code}"}} {n}' for code, n in sorted(self.counts.items())]
        return "\n".join(lines) + "\n"

    def _check_origin(self, headers: dict[str, str]) -> None:
        """A page that resolves its own name to this machine, or posts here from elsewhere, is refused."""
        if not self._hosts:
            return
        origin = headers.get("origin", "")
        names = [headers.get("host", ""), *([origin.partition("://")[2]] if origin else [])]
        if any(_hostname(name) not in self._hosts for name in names):
            raise _ForeignOrigin("this API answers on its loopback address only", "use http://127.0.0.1:PORT")


class _UnsupportedMediaType(InvalidRequest):
    """The body is of a type that this method does not take (RFC 9110, section 15.5.16)."""

    status = 415


class _ForeignOrigin(InvalidRequest):
    """Asked for under a foreign name, or by a page of another origin."""

    code = "policy_denied"
    status = 403


def _hostname(authority: str) -> str:
    return authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in found and name in _ONCE:
            raise InvalidRequest(f"the header {name} stands twice", "send it once")
        found[name] = value.decode("latin-1")
    return found


def _query(scope: Scope) -> dict[str, Any]:
    found: dict[str, Any] = {}
    text = scope["query_string"].decode("latin-1")
    if not text:
        return found
    if text.count("&") >= _QUERY_FIELDS:
        raise InvalidRequest(f"the query has more than {_QUERY_FIELDS} fields")
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in found:
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        else:
            found[name] = value
    return found


def _path(raw: bytes) -> str:
    """The path with its percent forms decoded once; what is decoded is what is judged."""
    try:
        return unquote(raw.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8") from None


def _credential(headers: dict[str, str]) -> Credential:
    token = headers.get("x-vault-token", "")
    if not token:
        kind, _, rest = headers.get("authorization", "").partition(" ")
        token = rest.strip() if kind.lower() == "bearer" else ""
    return token.encode() if token else Anonymous()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
