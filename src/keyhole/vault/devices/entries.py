"""What a device writes of a request and of its answer: Vault's format, with every text of theirs hashed. Pure.

Texts within data and answers, tokens and accessors become ``hmac-sha256:`` and HMAC-SHA256 under the device's own salt,
so that who knows a value can look for it (``sys/audit-hash``) and nobody can read it. Numbers, booleans and names of
fields stay; but a number that may be somebody's value is hashed too, as its JSON: in an answer that is secret, and in
requests to all mounts but those that are sent settings only. An entry is one line of ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from keyhole.core import EMPTY
from keyhole.core.identity import Caller
from keyhole.core.record import clip
from keyhole.core.request import Operation, Reply, Request
from keyhole.core.value import Secret
from keyhole.crypto.mac import MacKey

_PREFIX = "hmac-sha256:"
_DEPTH = 64
_SETTINGS = frozenset({"system", "token", "identity", "services", "agents", "approvals"})
_WRAP = "sys/wrapping/wrap"
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_PLAIN_AUTH = ("display_name", "policies", "token_policies", "identity_policies", "metadata", "entity_id", "token_type")


class Style(NamedTuple):
    """How one device writes.

    Attributes:
        salt: key of its hashes.
        hash_accessors: whether accessors are hashed as well.
        elide_lists: write how many keys a listing had instead of the hash of each.
    """

    salt: MacKey
    hash_accessors: bool = True
    elide_lists: bool = False

    def hashed(self, value: str | bytes) -> str:
        """A text or token as it stands in an entry."""
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        return _PREFIX + self.salt.hexdigest(data)

    def accessor(self, value: str) -> str:
        """An accessor as it stands in an entry."""
        return self.hashed(value) if value and self.hash_accessors else value


class Seen:
    """A request that an entry is about, gathered once for all devices.

    Attributes:
        request: as it was asked.
        path: canonical, or as it was asked when it could not be read.
        operation: with create and update told apart.
        org: name and id of the org; the name is empty for the org root.
        caller: who asked, if somebody known.
        mount: path, type, accessor and class of the mount, if there is one.
        plain_request, plain_response: fields that the mount was tuned to leave as they are.
        headers: that are to be written, each with whether it is hashed.
        data: instead of the request's own.
    """

    def __init__(
        self,
        request: Request,
        path: str,
        operation: str,
        org: tuple[str, str] = ("", "root"),
        caller: Caller | None = None,
        mount: Mapping[str, str] = EMPTY,
        plain_request: Collection[str] = (),
        plain_response: Collection[str] = (),
        headers: Mapping[str, bool] = EMPTY,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.request = request
        self.path = path
        self.operation = operation
        self.org = org
        self.caller = caller
        self.mount = mount
        self.plain_request = plain_request
        self.plain_response = plain_response
        self.headers = headers
        self.data = data


def request_entry(style: Style, seen: Seen, now: float, error: str = "") -> bytes:
    """The line of a request."""
    entry = {"time": _time(now), "type": "request", "auth": _auth(style, seen), "request": _request(style, seen)}
    return _line({**entry, "error": error} if error else entry)


def response_entry(style: Style, seen: Seen, now: float, reply: Reply | None, error: str = "") -> bytes:
    """The line of an answer, or of a refusal or failure."""
    entry: dict[str, Any] = {"time": _time(now), "type": "response", "auth": _auth(style, seen)}
    entry["request"] = _request(style, seen)
    entry["response"] = {**seen.mount, **(_response(style, seen, reply) if reply is not None else {})}
    return _line({**entry, "error": error} if error else entry)


def _line(entry: Mapping[str, Any]) -> bytes:
    return _encode(entry).encode() + b"\n"


def _time(now: float) -> str:
    seconds, fraction = divmod(int(now * 1e9), 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def _auth(style: Style, seen: Seen) -> dict[str, Any]:
    caller, credential = seen.caller, seen.request.credential
    found: dict[str, Any] = {}
    if isinstance(credential, bytes) and credential:
        found["client_token"] = style.hashed(credential)
    if caller is not None:
        found["accessor"] = style.accessor(caller.accessor)
        found["display_name"] = caller.name
        found["policies"] = sorted({*caller.policies, *caller.identity_policies})
        found["token_policies"] = list(caller.policies)
        found["identity_policies"] = list(caller.identity_policies)
        found["entity_id"] = caller.entity.id
        found["metadata"] = {**caller.meta, **caller.run.as_data()}
        found["token_type"] = caller.type
    return {name: value for name, value in found.items() if value}


def _request(style: Style, seen: Seen) -> dict[str, Any]:
    request = seen.request
    name, org_id = seen.org
    data = request.data if seen.data is None else seen.data
    found: dict[str, Any] = {
        "id": request.id,
        "operation": seen.operation,
        **seen.mount,
        "client_token_accessor": style.accessor(seen.caller.accessor) if seen.caller is not None else "",
        "namespace": {"id": org_id, **({"path": f"{name}/"} if name else {})},
        "path": clip(seen.path),
        "data": _fields(style, data, seen.plain_request, all_of_it=not _is_settings(seen)),
        "remote_address": request.remote,
        "wrap_ttl": request.wrap_ttl,
        "headers": _headers(style, seen),
    }
    if isinstance(request.credential, bytes) and request.credential:
        found["client_token"] = style.hashed(request.credential)
    return {key: value for key, value in found.items() if value}


def _is_settings(seen: Seen) -> bool:
    """Whether a number in the request is none of a secret's, a code or a password. Of a refused one nobody knows."""
    return seen.mount.get("mount_type") in _SETTINGS and seen.path != _WRAP


def _headers(style: Style, seen: Seen) -> dict[str, list[str]]:
    sent = seen.request.headers
    return {
        name: [style.hashed(sent[name]) if hashed else clip(sent[name])]
        for name, hashed in seen.headers.items()
        if name in sent
    }


def _response(style: Style, seen: Seen, reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if reply.auth is not None:
        found["auth"] = _given_auth(style, reply.auth)
    if reply.raw is not None:
        found["data"] = {"http_raw_body": style.hashed(reply.raw), "http_content_type": reply.content_type}
    elif reply.data:
        data: Mapping[str, Any] = reply.data
        if style.elide_lists and seen.operation == Operation.LIST.value:
            data = {name: len(value) if name in {"keys", "key_info"} else value for name, value in data.items()}
        found["data"] = _fields(style, data, seen.plain_response)
    if reply.warnings:
        found["warnings"] = list(reply.warnings)
    if reply.lease is not None:
        found["secret"] = {"lease_id": reply.lease.id}
    if (wrap := reply.wrap) is not None:
        found["wrap_info"] = {
            "token": style.hashed(wrap.token),
            "accessor": style.accessor(wrap.accessor),
            "wrapped_accessor": style.accessor(wrap.wrapped_accessor),
            "ttl": wrap.ttl,
            "creation_path": clip(wrap.path),
        }
    return found


def _given_auth(style: Style, auth: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: auth[name] for name in _PLAIN_AUTH if auth.get(name)}
    if auth.get("client_token"):
        token = auth["client_token"]
        found["client_token"] = _text_leaf(style.hashed)(token)
    if auth.get("accessor"):
        found["accessor"] = style.accessor(str(auth["accessor"]))
    return found


def _fields(
    style: Style, data: Mapping[str, Any], plain: Collection[str], *, all_of_it: bool = False
) -> dict[str, Any]:
    leaf = _all_leaf(style.hashed) if all_of_it else _text_leaf(style.hashed)
    return {
        clip(str(name)): value if name in plain and _is_json(value) else _hash_leaves(value, leaf, 0)
        for name, value in data.items()
    }


_Leaf = Callable[[Any], Any]


def _text_leaf(hashed: Callable[[str | bytes], str]) -> _Leaf:
    def leaf(value: Any) -> Any:
        if isinstance(value, Secret):
            return _hash_secret(value, hashed)
        if isinstance(value, bool | int | float) or value is None:
            return value
        return hashed(value if isinstance(value, str | bytes) else str(value))

    return leaf


def _all_leaf(hashed: Callable[[str | bytes], str]) -> _Leaf:
    texts = _text_leaf(hashed)

    def leaf(value: Any) -> Any:
        return (
            hashed(_encode(value)) if isinstance(value, int | float) and not isinstance(value, bool) else texts(value)
        )

    return leaf


def _is_json(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None) or (isinstance(value, list) and all(map(_is_json, value)))


def _hash_leaves(value: Any, leaf: _Leaf, depth: int) -> Any:
    """The same shape with every leaf as it is to be written."""
    if depth > _DEPTH:
        return leaf("deeper than anything is looked at")
    if isinstance(value, Mapping):
        return {clip(str(name)): _hash_leaves(inner, leaf, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hash_leaves(inner, leaf, depth + 1) for inner in value]
    return leaf(value)


def _hash_secret(value: Secret, hashed: Callable[[str | bytes], str]) -> Any:
    """A secret leaf is JSON, and is hashed as what it stands for."""
    data = value.reveal()
    try:
        return _hash_leaves(json.loads(data), _all_leaf(hashed), 0)
    except (ValueError, RecursionError):
        return hashed(data)
