"""A connection as it is stored: which provider, which client of it, and how its tokens are got. Without its tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_text, parse_texts
from keyhole.core.lease import parse_duration
from keyhole.core.minted import SIGNATURES
from keyhole.engines import Context
from keyhole.engines.oauth.providers import Provider, named
from keyhole.engines.settings import Parser, Setting, pairs, text, texts

GRANTS = ("authorization_code", "device_code", "client_credentials", "jwt_bearer", "refresh_token")
BY_PERSON = frozenset({"authorization_code", "device_code", "refresh_token"})
"""Grants that somebody consented to; what goes on without a person is the refresh token."""

CLIENT_AUTH = ("basic", "post", "private_key_jwt", "none")
URLS = ("authorize_url", "token_url", "device_url", "revoke_url")
SECRETS = ("client_secret", "private_key")
_LONGEST_ASSERTION = 3600
_CLAIMS = {"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}


def _one_of(known: Sequence[str]) -> Parser:
    def parse(value: Any, name: str) -> str:
        if value not in ("", None, *known):
            raise InvalidRequest(f"{str(value)[:40]!r} is not a {name}", f"one of {', '.join(known)}")
        return str(value or "")

    return parse


def _scopes(value: Any, name: str) -> list[str]:
    """Scopes as a list, or as a text with spaces or commas between (RFC 6749 section 3.3)."""
    items = value.replace(",", " ").split() if isinstance(value, str) else parse_texts(value, name, most=200)
    for item in items:
        if not all("!" <= each <= "~" and each not in '"\\' for each in item):
            raise InvalidRequest(f"{name} are words of visible ASCII characters", 'like "read write"')
    return list(dict.fromkeys(items))


def _claims(value: Any, name: str) -> dict[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str) and value else value or {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or len(json.dumps(found)) > 4096 or _CLAIMS & found.keys():
        raise InvalidRequest(f"{name} are a JSON object without iss, sub, aud and the times", 'like {"scope": "read"}')
    return found


def _assertion_life(value: Any, name: str) -> int:
    seconds = parse_duration(value, name=name)
    if not 10 <= seconds <= _LONGEST_ASSERTION:
        raise InvalidRequest(f"{name} is from 10 seconds to an hour")
    return seconds


def _pem(value: Any, name: str) -> str:
    r"""A key, also one whose line ends were written as ``\n`` to fit into a variable."""
    found = parse_text(value, name)
    return found.replace("\\n", "\n") if "\n" not in found.strip() else found


SETTINGS = (
    text("provider", about="of the catalog: LIST providers"),
    pairs("parameters", "of that provider, such as tenant=…"),
    text("issuer", about="whose endpoints are discovered (RFC 8414), and who answers must name (RFC 9207)"),
    text("authorize_url", about="where a browser is sent"),
    text("token_url", about="where tokens are asked for"),
    text("device_url", about="where the device flow begins (RFC 8628)"),
    text("revoke_url", about="where tokens are ended (RFC 7009)"),
    text("client_id", about="of the application that the provider knows"),
    Setting("client_auth", _one_of(CLIENT_AUTH), "", ", ".join(CLIENT_AUTH), "string"),
    Setting("grant", _one_of(GRANTS), "", ", ".join(GRANTS), "string"),
    Setting("scopes", _scopes, [], "that are asked for", "list"),
    pairs("authorize_params", "further parameters of the authorization request"),
    pairs("token_params", "further parameters of token requests, such as audience or resource"),
    texts("redirect_uris", "where browsers may come back to, besides http://127.0.0.1 at any port"),
    text("key_id", about="header kid of what private_key signs"),
    Setting("algorithm", _one_of(SIGNATURES), "RS256", "with which private_key signs", "string"),
    text("subject", about="claim sub of jwt_bearer; the issuer of the assertion is client_id"),
    text("audience", about="claim aud of what private_key signs; token_url unless said"),
    Setting("claims", _claims, {}, "further claims of jwt_bearer", "map"),
    Setting("lifetime", _assertion_life, 300, "of what private_key signs", "duration"),
    text("ca_pem", about="certificates that alone prove the provider, instead of those of the system"),
    text("resource", about="that tokens are asked for, and go to alone (RFC 8707)"),
    texts("allow_addresses", "networks that may be dialled although they are private, for a resource; they take sudo"),
    text("server", about="of tools that this is the account at; keyhole mcp server login connects it"),
)
CLIENT_SECRET = text("client_secret", about="of the client; never shown again")
PRIVATE_KEY = Setting("private_key", _pem, "", "PEM, for private_key_jwt and jwt_bearer; never shown again", "string")
REFRESH_TOKEN = text("refresh_token", about="for the grant refresh_token: one that was got elsewhere")
_SHOWN_APART = {"ca_pem"}
_DEFAULTS = {**{each.name: each.default for each in SETTINGS}, "registered": {}}


@dataclass(frozen=True, slots=True)
class Connection:
    """A stored connection.

    Attributes:
        name: of it.
        data: as stored, with its secrets.
        revision: of the entry.
    """

    name: str
    data: Mapping[str, Any] = field(repr=False)
    revision: int = 0

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    @property
    def provider(self) -> Provider:
        """What is particular to its provider."""
        return named(self.data["provider"])

    @property
    def by_person(self) -> bool:
        """Whether somebody has to consent."""
        return self.data["grant"] in BY_PERSON

    @property
    def allow(self) -> list[str]:
        """Hosts at private addresses that may be asked."""
        return list(self.data["allow"])

    def next_step(self) -> str:
        """What a person does to connect it anew."""
        if self.data["server"]:
            return f"keyhole mcp server login {self.data['server']}"
        return {
            "authorization_code": f"keyhole oauth connect {self.name}",
            "device_code": f"keyhole oauth connect {self.name} --device",
            "refresh_token": f"keyhole oauth add {self.name} with a new refresh token",
        }.get(self.data["grant"], f"keyhole oauth refresh {self.name}")

    def missing_scopes(self, granted: Sequence[str]) -> list[str]:
        """Scopes that were asked for and not given."""
        provider, has = self.provider, set(granted)
        return [
            scope
            for scope in self.data["scopes"]
            if scope not in has and scope not in provider.unlisted and provider.aliases.get(scope) not in has
        ]

    def shown(self) -> dict[str, Any]:
        """What a reader sees."""
        found = {s.name: self.data[s.name] for s in SETTINGS if s.name not in _SHOWN_APART}
        found["registered_redirect"] = self.data["registered"].get("redirect_uri", "")
        return {**found, **{f"{name}_set": bool(self.data[name]) for name in SECRETS}}


async def load(context: Context, name: str) -> Connection | None:
    """The connection of this name, or ``None``."""
    item = await context.storage.get_one(f"c/{name}")
    return None if item.data is None else read(name, item)


def read(name: str, item: Any) -> Connection:
    """The connection of an entry of the storage."""
    return Connection(name, {**_DEFAULTS, **json.loads(item.data)}, item.revision)
