"""The endpoints of an issuer, as it publishes them (RFC 8414, and OpenID Connect Discovery)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from keyhole.core.errors import InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.engines import Context

_BOUNDS = JsonBounds(depth=16, string=64 * 1024, items=5000)
_NAMES = {
    "authorize_url": "authorization_endpoint",
    "token_url": "token_endpoint",
    "device_url": "device_authorization_endpoint",
    "revoke_url": "revocation_endpoint",
}
REQUIRES_ISSUER = "authorization_response_iss_parameter_supported"


async def discover(context: Context, issuer: str, ca_pem: str, allow: Sequence[str]) -> Mapping[str, Any]:
    """The endpoints by the names of settings, and whether answers to browsers name the issuer (``REQUIRES_ISSUER``).

    Raises:
        InvalidRequest: it publishes nothing that is its own.
        KeyholeError: it cannot be asked.
    """
    return endpoints(await published(context, issuer, _places(issuer), ca_pem, allow))


def endpoints(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a document of an issuer says of its endpoints, as ``discover`` gives it."""
    found = {name: document.get(field) for name, field in _NAMES.items()}
    return {
        **{name: url for name, url in found.items() if isinstance(url, str)},
        REQUIRES_ISSUER: document.get(REQUIRES_ISSUER) is True,
    }


async def published(
    context: Context, issuer: str, places: Sequence[str], ca_pem: str, allow: Sequence[str]
) -> Mapping[str, Any]:
    """The first document that there is at one of several places. Raises as ``discover``."""
    for url in places:
        if (document := await fetched(context, url, ca_pem, allow)) is None:
            continue
        if document.get("issuer") != issuer:  # RFC 8414 section 3.3
            raise InvalidRequest("what is published there is of another issuer", "write the issuer as it calls itself")
        return document
    raise InvalidRequest("the issuer publishes no endpoints", "say authorize_url and token_url")


async def fetched(context: Context, url: str, ca_pem: str, allow: Sequence[str]) -> Mapping[str, Any] | None:
    """A document of metadata; ``None`` where there is none. Raises ``InvalidRequest`` for what is no JSON object."""
    heard = await context.net.ask(
        "GET", url, headers=[("Accept", "application/json")], ca_pem=ca_pem, allow=list(allow)
    )
    return parse_object(heard.body, _BOUNDS) if heard.status == 200 else None


def well_known(issuer: str) -> list[str]:
    """Where an issuer publishes itself, in the order of RFC 8414, section 5, for those who know nothing else of it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    names = [f"{root}/.well-known/{name}{path}" for name in ("oauth-authorization-server", "openid-configuration")]
    return [*names, f"{root}{path}/.well-known/openid-configuration"] if path else names


def _places(issuer: str) -> list[str]:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    return [
        f"{root}{path}/.well-known/openid-configuration",
        f"{root}/.well-known/oauth-authorization-server{path}",
    ]
