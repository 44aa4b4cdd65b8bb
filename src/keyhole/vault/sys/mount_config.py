"""What can be said of a mount when it is made and tuned: Vault's settings, parsed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import SYSTEM_MAX_TTL, parse_duration
from keyhole.core.numbers import parse_flag
from keyhole.engines import Field, FieldType

_LONGEST = 1024  # characters of a description or an option
_MOST = 64  # options, and names in a list
_TYPES = ("default-service", "default-batch", "service", "batch")


def _duration(value: Any, name: str) -> int:
    return 0 if value == "system" else parse_duration(value, name=name)


def _names(value: Any, name: str) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > _MOST or not all(isinstance(part, str) for part in parts):
        raise InvalidRequest(f"{name} is a list of at most {_MOST} names", f'write "{name}": ["NAME"]')
    return [_text(part.strip(), name) for part in parts if part.strip()]


def _visibility(value: Any, name: str) -> str:
    if value not in ("", "unauth", "hidden"):
        raise InvalidRequest(f"invalid {name}", "it is unauth, hidden or empty")
    return str(value)


def _token_type(value: Any, name: str) -> str:
    if value not in _TYPES:
        raise InvalidRequest(f"invalid value for '{name}'", f"it is one of {', '.join(_TYPES)}")
    return str(value)


_SETTINGS: dict[str, tuple[Callable[[Any, str], Any], str]] = {
    "default_lease_ttl": (_duration, "how long what is made here lives unless it is said; 0 for the system's own"),
    "max_lease_ttl": (_duration, "how long it lives at most; 0 for the system's own"),
    "force_no_cache": (parse_flag, "kept"),
    "listing_visibility": (_visibility, "unauth shows the mount to who has no token"),
    "token_type": (_token_type, "of a login method: default-service, default-batch, service or batch"),
    "audit_non_hmac_request_keys": (_names, "fields of requests that audit devices record in clear"),
    "audit_non_hmac_response_keys": (_names, "fields of answers that audit devices record in clear"),
    "passthrough_request_headers": (_names, "kept"),
    "allowed_response_headers": (_names, "kept"),
    "allowed_managed_keys": (_names, "kept"),
}
_KINDS: dict[object, FieldType] = {_duration: "duration", parse_flag: "boolean", _names: "list"}
FIELDS = tuple(Field(name, text, _KINDS.get(parse, "string")) for name, (parse, text) in _SETTINGS.items())


def merge(data: Any, before: Mapping[str, Any], *, login: bool = True) -> dict[str, Any]:
    """The settings after a request.

    Args:
        data: what it says; other fields are passed over, as in Vault.
        before: the settings so far.
        login: whether the mount is one of a login method.

    Raises:
        InvalidRequest: a setting is wrong, or does not fit another.
    """
    if not isinstance(data or {}, dict):
        raise InvalidRequest("config is an object", 'send {"config": {"max_lease_ttl": "1h"}}')
    after = dict(before)
    for name, (parse, _) in _SETTINGS.items():
        if (data or {}).get(name) is not None:
            after[name] = parse(data[name], name)
    if "token_type" in after and "token_type" not in before and not login:
        raise InvalidRequest("'token_type' can only be modified on auth mounts")
    default, longest = after["default_lease_ttl"], after["max_lease_ttl"]
    if longest and default > longest:
        raise InvalidRequest("given default lease TTL greater than given max lease TTL", "give a longer max_lease_ttl")
    if not longest and default > SYSTEM_MAX_TTL:
        raise InvalidRequest(
            f"given default lease TTL greater than system max lease TTL of {SYSTEM_MAX_TTL}", "give a max_lease_ttl"
        )
    return after


def parse_options(value: Any) -> dict[str, str]:
    """Options of an engine: an object of texts. Raises ``InvalidRequest``."""
    if not isinstance(value or {}, dict) or len(value or {}) > _MOST:
        raise InvalidRequest("options is an object of texts", 'send {"options": {"version": "2"}}')
    found = {}
    for name, each in (value or {}).items():
        if isinstance(each, bool) or not isinstance(each, str | int | None):
            raise InvalidRequest("options is an object of texts", 'send {"options": {"version": "2"}}')
        if each is not None:
            found[_text(name, "an option")] = _text(str(each), "an option")
    return found


def require_same(value: Any, before: Mapping[str, str]) -> None:
    """Options of a mount stay what they are: what it holds was stored for them. Raises ``InvalidRequest``."""
    for name, text in parse_options(value).items():
        if before.get(name) != text:
            raise InvalidRequest(f"cannot change the option {name[:40]!r} of a mount", "make another, and copy over")


def parse_description(value: Any) -> str:
    """Text for people. Raises ``InvalidRequest``."""
    if not isinstance(value, str):
        raise InvalidRequest("description is a text")
    return _text(value, "description")


def _text(value: str, name: str) -> str:
    if len(value) > _LONGEST or not value.isprintable():
        raise InvalidRequest(f"{name} is printable text of at most {_LONGEST} characters")
    return value
