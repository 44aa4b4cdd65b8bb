"""From an HTTP request in Vault's wire format to what is asked: pure, and the same whatever a server sent it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from keyhole.config import ApiLimits
from keyhole.core.cidr import within
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.request import Anonymous, Credential, Operation
from keyhole.core.stated import Stated
from keyhole.core.strict_json import check_value, parse_object

Scope = MutableMapping[str, Any]

OPERATIONS = {
    "GET": Operation.READ,
    "HEAD": Operation.READ,
    "HELP": Operation.READ,
    "LIST": Operation.LIST,
    "POST": Operation.UPDATE,
    "PUT": Operation.UPDATE,
    "PATCH": Operation.PATCH,
    "DELETE": Operation.DELETE,
}
_ONCE = frozenset(
    {"authorization", "content-type", "host", "origin", "x-vault-namespace", "x-vault-token", "x-vault-wrap-ttl"}
)
_JOINED = "x-forwarded-for"
_FORM = "application/x-www-form-urlencoded"
_OCSP = "application/ocsp-request"
_MERGE_PATCH = "application/merge-patch+json"
_JSON_STARTS = (b"{", b"[")
_QUERY_FIELDS = 100
_HOPS = 32
_LISTED = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("", "0", "f", "F", "false", "FALSE", "False"), False
)  # as Go reads a boolean
_FOLDERS = ("sys/internal/ui/mounts/",)  # reads that name a folder, as the CLI of Vault does


class Asker(NamedTuple):
    """What the headers of a request say of who asks. Clients send the same ones with every request.

    Attributes:
        source: the headers as the server gave them; the very object.
        headers: by name.
        remote: address.
        credential: the token.
        org: where it is asked; empty for the token's own.
        stated: of the work that it belongs to; ``None`` for nothing.
    """

    source: object
    headers: dict[str, str]
    remote: str
    credential: Credential
    org: str
    stated: Stated | None = None


class UnsupportedMediaType(InvalidRequest):
    """The body is of a type that this method does not take (RFC 9110, section 15.5.16)."""

    status = 415


class MissingHeader(InvalidRequest):
    """A header that this server is set to require is not there."""

    status = 412


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers by their names in lower case. Raises ``InvalidRequest`` when one that must be single is not."""
    found: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name, text = raw_name.decode("latin-1").lower(), value.decode("latin-1")
        if name in found and name in _ONCE:
            raise InvalidRequest(f"the header {name} stands twice", "send it once")
        found[name] = f"{found[name]},{text}" if name == _JOINED and name in found else text
    return found


def asker_of(scope: Scope, headers: dict[str, str], remote: str) -> Asker:
    """Who asks, by the headers of a request; nobody may change them."""
    org = headers.get("x-vault-namespace", "").strip("/")
    said = "traceparent" in headers or "x-keyhole-context" in headers
    stated = Stated.of_headers(scope["headers"]) if said else None
    return Asker(scope["headers"], headers, remote, credential_of(headers), org, stated)


def path_of(raw: bytes) -> str:
    """The path with its percent forms decoded once; what is decoded is what is judged."""
    try:
        text = raw.decode("ascii")
        return unquote(text, errors="strict") if "%" in text else text
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8") from None


def query_of(scope: Scope, limits: ApiLimits) -> dict[str, Any]:
    """The fields of the query. Raises ``InvalidRequest``."""
    text = scope["query_string"]
    return _fields(text, _QUERY_FIELDS, limits, "query") if text else {}


def credential_of(headers: Mapping[str, str]) -> Credential:
    """The token, from Vault's header or as a bearer (RFC 6750)."""
    token = headers.get("x-vault-token", "")
    if not token:
        kind, _, rest = headers.get("authorization", "").partition(" ")
        token = rest.strip() if kind.lower() == "bearer" else ""
    return token.encode() if token else Anonymous()


def help_path(method: str, path: str, query: dict[str, Any]) -> str:
    """The path whose answer is the help for a path, where that is asked for; takes ``help`` out of the query."""
    asked = query.pop("help", "") if method == "GET" else method == "HELP"
    return f"sys/internal/help/{path}".removesuffix("/") if asked else ""


def operation_of(method: str, query: dict[str, Any]) -> Operation | None:
    """What a method asks for; ``None`` for one that is not known. Takes ``list`` out of the query."""
    operation = OPERATIONS.get(method)
    listed = query.pop("list", "") if operation is Operation.READ else ""
    if isinstance(listed, list) or listed not in _LISTED:
        raise InvalidRequest("list is true or false", "ask with ?list=true, or with the method LIST")
    return Operation.LIST if _LISTED[listed] else operation


def asked_path(path: str, operation: Operation) -> str:
    """The path below ``/v1/`` as the door takes it: only listings name a folder.

    Raises:
        InvalidRequest: a write whose path ends in a slash.
        NotFound: another operation whose path does.
    """
    if operation is Operation.LIST or not path.endswith("/"):
        return path
    if operation in {Operation.UPDATE, Operation.PATCH}:
        raise InvalidRequest("cannot write to a path ending in '/'")
    if operation is Operation.READ and path.startswith(_FOLDERS):
        return path.removesuffix("/")
    raise NotFound("unsupported path", "leave the slash at the end out, or list it")


def wrap_ttl_of(headers: Mapping[str, str]) -> int:
    """Seconds for which the answer is to be wrapped; 0 for an answer as it is. Raises ``InvalidRequest``."""
    text = headers.get("x-vault-wrap-ttl", "")
    try:
        return parse_duration(text, name="X-Vault-Wrap-TTL")
    except InvalidRequest as error:
        raise InvalidRequest(f"error parsing X-Vault-Wrap-TTL header: {error.reason}", error.hint) from None


def check_content_type(content_type: str, operation: Operation) -> None:
    """Refuse a patch that is not called a merge patch (RFC 7396). Raises ``UnsupportedMediaType``."""
    if operation is Operation.PATCH and _kind(content_type) != _MERGE_PATCH:
        raise UnsupportedMediaType(f"PATCH needs the content type {_MERGE_PATCH}")


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def body_of(body: bytes, content_type: str, limits: ApiLimits) -> dict[str, Any]:
    """The fields of a body: one JSON object under any content type, or a form under a form's own.

    The bytes of an OCSP request (RFC 6960, appendix A.1) become the field ``request``, in base64.

    ``curl -d`` calls everything a form; what begins like JSON is JSON all the same.

    Raises:
        InvalidRequest: it can be read in no way, or in two.
    """
    if _kind(content_type) == _FORM and not body.lstrip().startswith(_JSON_STARTS):
        return _fields(body.strip(), limits.items, limits, "form") if body.strip() else {}
    if _kind(content_type) == _OCSP:
        return {"request": base64.b64encode(body).decode()}
    return parse_object(body, limits)


def remote_of(scope: Scope, headers: Mapping[str, str], trusted: Iterable[str]) -> str:
    """The address of who asks: of the connection, or what a trusted proxy says of it.

    Args:
        scope: of the connection.
        headers: where the last address of ``X-Forwarded-For`` is what the nearest proxy saw.
        trusted: CIDR blocks of proxies; only what they add to that header counts.

    Raises:
        InvalidRequest: a trusted proxy sent something that is no address.
    """
    remote = str((scope.get("client") or ("",))[0])
    hops = headers.get(_JOINED, "")
    if not hops or not within(remote, trusted):
        return remote
    for hop in reversed(hops.split(",")[-_HOPS:]):
        remote = hop.strip()
        if not within(remote, ("0.0.0.0/0", "::/0")):
            raise InvalidRequest("X-Forwarded-For has something that is no address", "have the proxy send addresses")
        if not within(remote, trusted):
            break
    return remote


def require_header(headers: Mapping[str, str]) -> None:
    """Refuse a request without ``X-Vault-Request: true``: a forged one cannot set headers.

    Raises:
        MissingHeader: it is not there.
    """
    if headers.get("x-vault-request") != "true":
        raise MissingHeader("missing 'X-Vault-Request' header", "send X-Vault-Request: true")


def _fields(text: bytes, most: int, limits: ApiLimits, what: str) -> dict[str, Any]:
    """Fields of a query or form; a repeated one is a list. Raises ``InvalidRequest``."""
    if text.count(b"&") >= most:
        raise InvalidRequest(f"the {what} has more than {most} fields")
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, encoding="utf-8", errors="strict")
    except ValueError:
        raise InvalidRequest(f"the {what} is not UTF-8") from None
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    check_value(found, limits)
    return found
