"""What is asked and what is answered, without any I/O: requests are built and replies are parsed here, once.

Both transports, and the blocking and the awaiting client, are shells around these functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from keyhole.core import errors
from keyhole.core.errors import KeyholeError, Unreachable

OPERATIONS = {"read": "GET", "list": "GET", "update": "POST", "patch": "PATCH", "delete": "DELETE"}
_BY_STATUS: dict[int, type[KeyholeError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.PolicyDenied,
    404: errors.NotFound,
    405: errors.InvalidRequest,
    409: errors.Conflict,
    412: errors.Conflict,
    413: errors.BodyTooLarge,
    415: errors.InvalidRequest,
    429: errors.RateLimited,
    501: errors.NotFound,
    503: errors.Sealed,
}


class Wire:
    """A request as HTTP: method, target below the server's address, headers and body."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> None:
        self.method: Final = method
        self.target: Final = target
        self.headers: Final = headers
        self.body: Final = body


class Result:
    """What the vault answered; the same from a server and from a vault in this process.

    Attributes:
        data: the fields; empty when there are none.
        auth: a fresh token, in the field names of Vault's ``auth`` block.
        warnings: for a person to read.
        found: ``False`` when ``data`` describes something that is not there any more (a deleted version).
        request_id: the id under which the journal has it.
        lease_id: under which what was made lives; empty for nothing.
        lease_duration: seconds that it lives, or for which to rely on what was read.
        renewable: the lease can be renewed.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        auth: dict[str, Any] | None = None,
        warnings: list[str] | None = None,
        *,
        found: bool = True,
        request_id: str = "",
        lease_id: str = "",
        lease_duration: int = 0,
        renewable: bool = False,
    ) -> None:
        self.data = {} if data is None else data
        self.auth = auth
        self.warnings = [] if warnings is None else warnings
        self.found = found
        self.request_id = request_id
        self.lease_id = lease_id
        self.lease_duration = lease_duration
        self.renewable = renewable


def build(
    operation: str,
    path: str,
    data: Mapping[str, Any],
    *,
    token: str = "",
    org: str = "",
    stated: Mapping[str, str] | None = None,
) -> Wire:
    """A request to the HTTP API.

    Args:
        operation: ``read``, ``list``, ``update``, ``patch`` or ``delete``.
        path: API path without a leading slash; percent-encoded here.
        data: the body of ``update`` and ``patch``, else the query.
        token: the caller's token.
        org: sent as ``X-Vault-Namespace``.
        stated: headers that say what work it belongs to.
    """
    headers = {"X-Vault-Request": "true", "Accept": "application/json", **(stated or {})}
    if token:
        headers["X-Vault-Token"] = token
    if org:
        headers["X-Vault-Namespace"] = org
    target = "/v1/" + quote(path.strip("/"), safe="/")
    body = None
    if operation in {"update", "patch"}:
        body = json.dumps(dict(data), separators=(",", ":")).encode()
        headers["Content-Type"] = "application/merge-patch+json" if operation == "patch" else "application/json"
    else:
        query = {name: value for name, value in data.items() if value not in (None, "")}
        # A listing as a plain GET passes every HTTP intermediary; the method LIST does not.
        query |= {"list": "true"} if operation == "list" else {}
        target += "?" + urlencode(query, doseq=True) if query else ""
    return Wire(OPERATIONS[operation], target, headers, body)


def parse(status: int, headers: Mapping[str, str], body: bytes, *, address: str = "the server") -> Result:
    """The result in a response.

    Args:
        status: of the response.
        headers: with names in lower case.
        body: all of it.
        address: of the server, for error texts.

    Raises:
        KeyholeError: what the server refused, as the class that it names; ``Unreachable`` for something that is not
            Keyhole's API.
    """
    if 300 <= status < 400:
        raise Unreachable(
            f"{address} answers with a redirect, which is not followed", "give the address where the API itself is"
        )
    data = _object(body, status, address)
    if 200 <= status < 300 or (status == 404 and isinstance(data.get("data"), dict)):
        return _result(status, headers, data)
    raise refusal(status, headers, data)


def refusal(status: int, headers: Mapping[str, str], data: Mapping[str, Any]) -> KeyholeError:
    """The error in a refused response: by Keyhole's own code, else by the status."""
    detail = data.get("error")
    request_id = headers.get("x-keyhole-request-id", "")
    if isinstance(detail, Mapping):
        code, reason, hint = (_text(detail.get(name)) for name in ("code", "reason", "hint"))
        request_id = _text(detail.get("request_id")) or request_id
    else:
        code, hint = headers.get("x-keyhole-error", ""), headers.get("x-keyhole-hint", "")
        reason = headers.get("x-keyhole-reason", "").removesuffix(f": {hint}") or _listed(data)
    cls = errors.by_code(code) if code else _BY_STATUS.get(status, KeyholeError)
    if cls is KeyholeError and status in _BY_STATUS:
        cls = _BY_STATUS[status]
    error = cls(reason or f"the server answered with status {status}", hint)
    error.request_id = request_id
    if isinstance(error, errors.ApprovalRequired):
        error.approval = headers.get("x-keyhole-approval", "")
    return error


def _object(body: bytes, status: int, address: str) -> dict[str, Any]:
    if not body:
        return {}
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Unreachable(
            f"{address} is not Keyhole's API: it answers {status} with something else than a JSON object",
            "check the address",
        )
    return data


def _result(status: int, headers: Mapping[str, str], data: dict[str, Any]) -> Result:
    # The few routes without an envelope (sys/seal-status) answer their fields alone.
    enveloped = "request_id" in data and ("data" in data or "auth" in data)
    return Result(
        data=(data.get("data") or {}) if enveloped else data,
        auth=data.get("auth") if enveloped else None,
        warnings=list(data.get("warnings") or []) if enveloped else [],
        found=status != 404,
        request_id=headers.get("x-keyhole-request-id", ""),
        lease_id=_text(data.get("lease_id")) if enveloped else "",
        lease_duration=int(data.get("lease_duration") or 0) if enveloped else 0,
        renewable=enveloped and bool(data.get("renewable")),
    )


def _listed(data: Mapping[str, Any]) -> str:
    """The texts of Vault's ``errors``, without the layout of its lists."""
    listed = data.get("errors")
    texts = [_text(item) for item in listed] if isinstance(listed, list) else []
    return "; ".join(text.replace("1 error occurred:", "").replace("\n", " ").strip(" *\t") for text in texts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
