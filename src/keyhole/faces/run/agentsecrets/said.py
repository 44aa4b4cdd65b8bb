"""What the port says of its own, in the forms that the SDK of AgentSecrets tells apart. Pure, without any value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from keyhole.core.errors import KeyholeError, by_code
from keyhole.core.record import clip

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_UPSTREAM = frozenset({"upstream_unreachable", "upstream_timeout", "upstream_tls", "address_denied"})
_KEPT_STATUS = range(400, 600)


class Refused(Exception):
    """A request that is answered by the port itself.

    Args:
        status: HTTP status.
        body: members of the JSON object.
        reason: a word for the log.
    """

    def __init__(self, status: int, body: Mapping[str, Any], reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.body = dict(body)
        self.reason = reason


def malformed(text: str) -> Refused:
    """The request cannot be read."""
    return Refused(400, {"error": text}, "invalid_request")


def empty(host: str) -> Refused:
    """The agent may use nothing at all."""
    text = "Your workspace allowlist is empty. The agent may use no service yet: keyhole grant AGENT SERVICE"
    return Refused(403, {"error": "empty_allowlist", "domain": host, "message": text}, "empty_allowlist")


def not_allowed(host: str, more: str = "") -> Refused:
    """No service of the agent is for this host, or none that binds the secret."""
    text = (
        f"{host} is not in your workspace allowlist. "
        f"To authorize it, run: agentsecrets workspace allowlist add {host}{more and f' ({more})'}"
    )
    word = "domain_not_in_allowlist"
    return Refused(403, {"error": word, "domain": host, "message": text}, word)


def unknown(key: str) -> Refused:
    """No secret of the agent goes by this name."""
    text = f"secret '{clip(key)}' not found in keychain — use list_secrets to see the names that this agent may use"
    return Refused(502, {"error": text}, "secret_not_found")


def not_bound(host: str, message: str) -> Refused:
    """The secret may go to this host, but not in this way."""
    return Refused(403, {"error": "injection_not_bound", "domain": host, "message": message}, "injection_not_bound")


def ambiguous(host: str, message: str) -> Refused:
    """The name means several secrets."""
    return Refused(409, {"error": "ambiguous_secret", "domain": host, "message": message}, "ambiguous_secret")


def of_broker(status: int, detail: Mapping[str, Any], host: str, keys: str, style: str) -> Refused:
    """The broker's refusal of a call.

    Args:
        status: of its answer.
        detail: the object ``error`` of it.
        host: where the call should go.
        keys: names of the secrets, as they were given.
        style: how they should be attached.
    """
    code = str(detail.get("code") or "")
    reason, hint = str(detail.get("reason") or "the call was refused"), str(detail.get("hint") or "")
    if code in _UPSTREAM:
        return Refused(502, {"error": f"failed to reach upstream: {reason}"}, code)
    if code == "no_service":
        return not_allowed(host, hint)
    if code == "not_found":
        return unknown(keys)
    if code == "invalid_request" and reason == "the secret has no user name":
        text = f"injection failed for {keys} (basic): basic auth secret must be in format username:password"
        return Refused(502, {"error": text}, "injection_failed")
    if code == "invalid_request" and style in {"body", "form", "query"}:
        return Refused(502, {"error": f"injection failed for {keys} ({style}): {reason}"}, "injection_failed")
    if code == "unauthenticated":
        return Refused(403, {"error": code, "message": f"the session of this port has ended: {reason}"}, code)
    kept = status if status in _KEPT_STATUS else by_code(code).status
    message = f"{reason}; {hint}" if hint else reason
    return Refused(kept, {"error": code or "refused", "domain": host, "message": message}, code or "refused")


def rejected(error: KeyholeError) -> Refused:
    """What could not be read as a request."""
    return Refused(error.status, {"error": f"{error.reason}; {error.hint}" if error.hint else error.reason}, error.code)


def rendered(status: int, body: Mapping[str, Any], *, reason: str = "", head_only: bool = False) -> bytes:
    """A whole answer, the last of its connection; one with a ``reason`` is a refusal of ours."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    head = (
        b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\n%bConnection: close\r\n\r\n"
    )
    mark = b"X-Keyhole-Error: %b\r\n" % reason.encode() if reason else b""
    head = head % (status, _REASONS.get(status, b"Refused"), len(content), mark)
    return head if head_only else head + content
