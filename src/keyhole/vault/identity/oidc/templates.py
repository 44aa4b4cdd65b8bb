"""Claims by a template: JSON text in which ``{{…}}`` stands for something of the entity. Pure.

Source of the names: "Templates" in ``developer.hashicorp.com/vault/docs/secrets/identity/identity-token``. What is
filled in is a JSON value, and a template is only taken if it has none within a text, so a value cannot become more.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from keyhole.config import ApiLimits
from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import NOBODY, IdentityView
from keyhole.core.lease import parse_duration
from keyhole.core.strict_json import parse_object

RESERVED = ("iat", "aud", "exp", "iss", "sub", "namespace", "nonce", "auth_time", "at_hash", "c_hash")
_LONGEST = 16 * 1024
_BOUNDS = ApiLimits()
_PLACE = re.compile(r"\{\{([^{}]*)\}\}")
_ALIAS = re.compile(r"identity\.entity\.aliases\.([^.]+)\.(id|name|metadata|custom_metadata)(?:\.(.+))?", re.DOTALL)
_PREFIX_METADATA = "identity.entity.metadata."
_PREFIX_TIME = "time.now."

_SIMPLE: Mapping[str, Callable[[IdentityView], Any]] = {
    "identity.entity.id": lambda view: view.id,
    "identity.entity.name": lambda view: view.name,
    "identity.entity.metadata": lambda view: dict(view.metadata),
    "identity.entity.groups.ids": lambda view: [group.id for group in view.groups],
    "identity.entity.groups.names": lambda view: [group.name for group in view.groups],
}


def read_template(text: str) -> str:
    """A template, also from base64, after a look at what it would make.

    Raises:
        InvalidRequest: it is no JSON object, names what there is not, or has a claim that every token has.
    """
    if len(text) > _LONGEST:
        raise InvalidRequest(f"the template has more than {_LONGEST} characters")
    plain = _from_base64(text)
    claims = fill(plain, NOBODY, 0)
    _parsed(_PLACE.sub('"x"', plain).strip() or "{}")  # a list or an object of nobody could stand within a text
    if taken := sorted(claims.keys() & set(RESERVED)):
        raise InvalidRequest(
            f"top level key {taken[0]!r} not allowed. Restricted keys: {', '.join(sorted(RESERVED))}",
            "choose another name for the claim",
        )
    return plain


def fill(template: str, view: IdentityView, now: int) -> dict[str, Any]:
    """The claims of an entity. Raises ``InvalidRequest`` for what is no template."""
    if not template.strip():
        return {}
    return _parsed(_PLACE.sub(lambda match: json.dumps(_value(match[1].strip(), view, now)), template))


def _parsed(text: str) -> dict[str, Any]:
    try:
        return parse_object(text.encode(), _BOUNDS)
    except InvalidRequest as error:
        raise InvalidRequest(f"error parsing template JSON: {error.reason}", "it is a JSON object with {{…}}") from None


def _value(selector: str, view: IdentityView, now: int) -> Any:
    if selector in _SIMPLE:
        return _SIMPLE[selector](view)
    if selector.startswith(_PREFIX_METADATA):
        return view.metadata.get(selector.removeprefix(_PREFIX_METADATA), "")
    if match := _ALIAS.fullmatch(selector):
        return _of_alias(view, *match.groups())
    if selector == "time.now":
        return now
    sign, _, duration = selector.removeprefix(_PREFIX_TIME).partition(".")
    if selector.startswith(_PREFIX_TIME) and sign in ("plus", "minus") and duration:
        seconds = parse_duration(duration, name="the duration in the template")
        return now + seconds if sign == "plus" else now - seconds
    raise InvalidRequest(f'unknown parameter in the template: "{selector}"', "such as {{identity.entity.name}}")


def _of_alias(view: IdentityView, accessor: str, field: str, key: str | None) -> Any:
    alias = view.aliases.get(accessor)
    if field in ("id", "name"):
        if key is not None:
            raise InvalidRequest(f"an alias has no {field} with parts")
        return getattr(alias, field) if alias else ""
    found: Mapping[str, str] = getattr(alias, field) if alias else {}
    return dict(found) if key is None else found.get(key, "")


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (ValueError, binascii.Error):
        return text
