"""Replies and errors in Vault's wire format; our own routes carry the machine-readable error besides."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _text
from typing import Any

from keyhole.core.errors import ApprovalRequired, KeyholeError, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.request import Reply, WrapInfo
from keyhole.core.times import format_time
from keyhole.core.value import Secret

JSON = b"application/json"
_OWN = (
    "services",
    "agents",
    "approvals",
    "sys/audit-log",
    "sys/keyhole",
    "sys/latency",
    "sys/policy-capture",
    "sys/policy-replay",
    "sys/reach",
    "sys/why",
    "sys/who-can",
    "sys/what-can",
    "sys/org",
)
_SERVER = ("/healthz", "/readyz", "/metrics")
# Here Vault puts the data beside the envelope too, and older clients read it there.
_LEGACY = (
    "sys/audit",
    "sys/audit-hash",
    "sys/auth",
    "sys/capabilities",
    "sys/capabilities-accessor",
    "sys/capabilities-self",
    "sys/config/auditing/request-headers",
    "sys/config/cors",
    "sys/key-status",
    "sys/mounts",
    "sys/auth",
    "sys/remount",
    "sys/policy",
    "sys/remount",
    "sys/rotate",
    "sys/wrapping/wrap",
)
_BELOW_OWN, _BELOW_LEGACY = (tuple(f"{path}/" for path in paths) for paths in (_OWN, _LEGACY))
# Vault writes refusals with the punctuation of Go's go-multierror, and clients look for it.
_MULTI = "1 error occurred:\n\t* {}\n\n"
_MARK = f"secret-leaf-{secrets.token_hex(16)}-"  # nobody who wrote a value can have known it
# All that an envelope says of an answer that is wrapped.
_EMPTY: dict[str, Any] = {
    "request_id": "",
    "lease_id": "",
    "renewable": False,
    "lease_duration": 0,
    "data": None,
    "wrap_info": None,
    "warnings": None,
    "auth": None,
}
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
_plain = json.JSONEncoder(separators=(",", ":")).encode


def is_own(path: str) -> bool:
    """Is this a route that Vault does not have? Those of the server itself are outside of ``/v1/``."""
    return path in _SERVER or path in _OWN or path.startswith(_BELOW_OWN)


def render(reply: Reply, path: str = "") -> Answer:
    """Status, headers and body of a reply to a request for this path."""
    headers = [(b"content-type", JSON), (b"cache-control", b"no-store")]
    if reply.request_id:
        headers.append((b"x-keyhole-request-id", reply.request_id.encode()))
    if reply.headers:
        headers += _more(reply.headers)
    if reply.wrap is not None:
        return 200, headers, _encode({**_EMPTY, "wrap_info": _wrap_info(reply.wrap)})
    if reply.raw is not None:
        headers[0] = (b"content-type", reply.content_type.encode())
        return reply.status or 200, headers, reply.raw
    lease = reply.lease
    if reply.data is None and reply.auth is None and lease is None and not reply.warnings:
        return 204, headers[1:], b""
    if reply.bare:
        return 200, headers, _encode(reply.data)
    body = (
        f'"request_id":{_text(reply.request_id or str(uuid.uuid4()))},"lease_id":{_text(lease.id if lease else "")},'
        f'"renewable":{"true" if lease and lease.renewable else "false"},'
        f'"lease_duration":{lease.ttl if lease else reply.duration},"data":{_json(reply.data)},"wrap_info":null,'
        f'"warnings":{_json(reply.warnings or None)},"auth":{_json(reply.auth)}}}'
    )
    beside = {}
    if reply.data and _is_legacy(path):
        beside = {name: value for name, value in reply.data.items() if name not in _EMPTY}
    start = f"{_json(beside)[:-1]}," if beside else "{"
    return reply.status or (200 if reply.found else 404), headers, f"{start}{body}".encode()


def _wrap_info(wrap: WrapInfo) -> dict[str, Any]:
    info = {
        "token": wrap.token,
        "accessor": wrap.accessor,
        "ttl": wrap.ttl,
        "creation_time": format_time(wrap.created),
        "creation_path": wrap.path,
    }
    return {**info, "wrapped_accessor": wrap.wrapped_accessor} if wrap.wrapped_accessor else info


def _more(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), text.encode()) for name, text in headers.items()]


def _is_legacy(path: str) -> bool:
    return path in _LEGACY or path.startswith(_BELOW_LEGACY)


def render_error(error: KeyholeError, path: str) -> Answer:
    """Status, headers and body of a refusal or failure."""
    request_id = error.request_id or str(uuid.uuid4())
    headers = [
        (b"content-type", JSON),
        (b"cache-control", b"no-store"),
        (b"x-keyhole-error", error.code.encode()),
        (b"x-keyhole-request-id", request_id.encode()),
    ]
    if error.retry_after:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if isinstance(error, ApprovalRequired) and error.approval:
        headers.append((b"x-keyhole-approval", error.approval.encode()))
    headers += _more(error.headers)
    detail = {"code": error.code, "reason": error.reason, "hint": error.hint, "request_id": request_id}
    if is_own(path):
        return error.status, headers, _encode({"errors": [str(error)], "error": detail})
    headers.append((b"x-keyhole-reason", _header_text(str(error))))
    if error.hint:
        headers.append((b"x-keyhole-hint", _header_text(error.hint)))
    return error.status, headers, _encode({"errors": _vault_texts(error)})


def _vault_texts(error: KeyholeError) -> list[str]:
    if error.status == 405:
        return [_MULTI.format(error.reason)] if error.reason else []
    if isinstance(error, NotFound):
        if error.reason == "unsupported path":
            return [_MULTI.format(error.reason)]
        return [error.reason] if error.reason.startswith(("no handler for route", "Invalid path")) else []
    if isinstance(error, PolicyDenied):
        return [_MULTI.format("permission denied") if error.reason == "permission denied" else error.reason]
    if isinstance(error, Unauthenticated):
        return ["permission denied"]
    return [error.reason]


def _header_text(text: str) -> bytes:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:500].encode()


def _encode(value: Any) -> bytes:
    return _json(value).encode()


def _json(value: Any) -> str:
    """JSON in one line. A secret leaf holds JSON text already, which is put in as it is."""
    if value is None:
        return "null"
    if type(value) is Secret:
        return _content(value)
    if type(value) is dict and Secret in map(type, value.values()):
        return f"{{{','.join([f'{_text(name)}:{_json(leaf)}' for name, leaf in value.items()])}}}"
    try:
        return _plain(value)
    except TypeError:
        return _filled_in(value)


def _content(leaf: Secret) -> str:
    # Whoever got a reply with this leaf has the capability ``read``, and the journal has the request.
    return leaf.reveal().decode()


def _filled_in(value: Any) -> str:
    """The JSON of something that has secret leaves deeper within."""
    revealed: list[str] = []

    def leaf(found: object) -> str:
        if not isinstance(found, Secret):
            raise TypeError
        revealed.append(_content(found))
        return f"{_MARK}{len(revealed)}"

    text = json.dumps(value, default=leaf, separators=(",", ":"))
    for number, content in enumerate(revealed, 1):
        text = text.replace(f'"{_MARK}{number}"', content, 1)
    return text
