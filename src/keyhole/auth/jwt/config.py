"""Who is believed: where the keys of an issuer come from, and how they are kept."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyhole.auth import settings
from keyhole.auth.outside import asked_host, pems
from keyhole.auth.settings import Setting, text, texts
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, UpstreamUnreachable
from keyhole.core.request import Reply
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto.foreign_jwt import ALGORITHMS, UnknownKey, VerifyingKey, key_of_pem, keys_of_jwks, verify
from keyhole.engines import Call, Context
from keyhole.engines.outside import is_trusted
from keyhole.net.together import Together, awaited

PATH = "config"
KEPT = 600.0  # seconds for which keys are used without asking again
PAUSE = 10.0  # seconds between two questions, so that tokens of strangers do not make us ask and ask
_BOUNDS = JsonBounds(depth=16, string=65536, items=5000)
_SOURCES = ("oidc_discovery_url", "jwks_url", "jwt_validation_pubkeys")


def _algorithms(value: Any, name: str) -> list[str]:
    found = texts(value, name)
    if unknown := set(found) - set(ALGORITHMS):
        raise InvalidRequest(f"unsupported signing algorithm: {', '.join(sorted(unknown))}", ", ".join(ALGORITHMS))
    return found


def _map(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} is an object")
    return value


def _mode(value: Any, name: str) -> str:
    if not isinstance(value, str) or value not in {"", "query", "form_post"}:
        raise InvalidRequest(f"invalid {name}: use query or form_post")
    return value


def _types(value: Any, name: str) -> list[str]:
    found = texts(value, name)
    if set(found) - {"code"}:
        raise InvalidRequest(f"{name} is code: tokens do not travel through the browser")
    return found


SETTINGS = (
    Setting("oidc_discovery_url", text, "", "issuer whose discovery document names its keys (OpenID Connect)"),
    Setting("oidc_discovery_ca_pem", text, "", "CAs that prove the issuer, in PEM, instead of the system's"),
    Setting("oidc_client_id", text, "", "our id at the issuer, for logins of people in a browser"),
    Setting("oidc_response_mode", _mode, "", "how the browser brings the code: query, or form_post"),
    Setting("oidc_response_types", _types, [], "code"),
    Setting("jwks_url", text, "", "where its keys lie (RFC 7517)"),
    Setting("jwks_ca_pem", text, "", "CAs that prove that server, in PEM, instead of the system's"),
    Setting("jwt_validation_pubkeys", pems, [], "its keys themselves, in PEM"),
    Setting("bound_issuer", text, "", "what tokens must name as their issuer"),
    Setting("jwt_supported_algs", _algorithms, [], "signatures that count; all that are safe unless said"),
    Setting("default_role", text, "", "the role of logins that name none"),
    Setting("provider_config", _map, {}, "taken for Vault's clients; no provider needs special treatment here"),
    Setting("namespace_in_state", lambda value, _name: bool(value), default=True, help="taken for Vault's clients"),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a mount as they are stored, with the revision that tells a changed one."""

    data: Mapping[str, Any]
    revision: int

    @property
    def allow(self) -> Sequence[str]:
        """Hosts that may lie at private addresses."""
        return self.data["allow"]  # type: ignore[no-any-return] # it is stored so

    @property
    def issuer(self) -> str:
        """What tokens must name; an issuer that was discovered signs in its own name."""
        return str(self.data["bound_issuer"] or self.data["oidc_discovery_url"])


async def load(context: Context) -> Config:
    """The settings; where nothing was configured those of a mount that believes nobody, as strangers see any."""
    item = await context.storage.get_one(PATH)
    if item.data is None:
        return Config(
            {each.name: each.default for each in SETTINGS} | {"allow": [], "state_key": os.urandom(32).hex()}, 0
        )
    return Config(json.loads(item.data), item.revision)


@dataclass(eq=False, slots=True)
class _Known:
    """What an issuer said, under one revision of the settings."""

    revision: int
    asked: float = -math.inf
    answered: bool = False
    keys: tuple[VerifyingKey, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


class Issuer:
    """The issuer of a mount: its keys, kept for a while, and asked for again when a token names an unknown one.

    A stranger who makes us ask and hangs up stops no question: it would be the last one for a while.
    """

    def __init__(self) -> None:
        self._known = _Known(-1)
        self._asking: Together[_Known, None] = Together()

    async def verify(self, context: Context, config: Config, token: str) -> dict[str, Any]:
        """The claims of a token that the issuer has signed. Raises ``InvalidRequest``."""
        algorithms = config.data["jwt_supported_algs"]
        keys = await self.keys(context, config)
        try:
            return verify(token, keys, algorithms)
        except UnknownKey:
            if config.data["jwt_validation_pubkeys"] or not config.revision:
                raise
            return verify(token, await self.keys(context, config, than=keys), algorithms)

    async def keys(
        self, context: Context, config: Config, *, than: tuple[VerifyingKey, ...] | None = None
    ) -> tuple[VerifyingKey, ...]:
        """Its keys. Those of ``than`` do not suffice: they are asked for again, unless that was done just now."""
        if pems := config.data["jwt_validation_pubkeys"]:
            return tuple(key_of_pem(each) for each in pems)
        if not config.revision:
            return ()
        return (await self._current(context, config, than)).keys

    async def document(self, context: Context, config: Config) -> Mapping[str, Any]:
        """What the issuer says of itself (OpenID Connect Discovery)."""
        if config.data["jwt_validation_pubkeys"] or not config.revision:
            return {}
        return (await self._current(context, config)).document

    async def _current(self, context: Context, config: Config, than: tuple[VerifyingKey, ...] | None = None) -> _Known:
        if config.revision != self._known.revision:
            self._known = _Known(config.revision)
        known = self._known
        if (asking := self._asking.get(known)) is not None:
            with contextlib.suppress(KeyholeError):  # whoever began it says so; the keys that are known still count
                await awaited(asking)
        else:
            age, missing = context.now - known.asked, than is known.keys or not known.keys
            if age >= KEPT or (missing and age >= PAUSE):
                await self._asking.wait(known, lambda: _ask(context, config, known))
        if not known.keys and not known.answered:
            raise UpstreamUnreachable("the issuer gave no keys", f"try again in {PAUSE:.0f} seconds")
        return known


async def _ask(context: Context, config: Config, known: _Known) -> None:
    known.asked = context.now  # also when it fails: an issuer that is away is not asked by every stranger
    known.answered = False
    known.document, known.keys = await ask(context, config.data, config.allow)
    known.answered = True


async def ask(
    context: Context, data: Mapping[str, Any], allow: Sequence[str]
) -> tuple[Mapping[str, Any], tuple[VerifyingKey, ...]]:
    """The discovery document, if there is one, and the keys. Raises ``KeyholeError``."""
    url, ca_pem, document = data["jwks_url"], data["jwks_ca_pem"], {}
    if issuer := data["oidc_discovery_url"]:
        ca_pem = data["oidc_discovery_ca_pem"]
        well_known = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        document = parse_object(await _get(context, well_known, ca_pem, allow), _BOUNDS)
        if document.get("issuer") != issuer:
            raise InvalidRequest("the discovery document names another issuer", "use the URL that it names")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise InvalidRequest("the discovery document names no keys (jwks_uri)", "check the URL")
    return document, keys_of_jwks(await _get(context, url, ca_pem, allow))


async def _get(context: Context, url: str, ca_pem: str, allow: Sequence[str]) -> bytes:
    heard = await context.net.ask("GET", url, headers=[("Accept", "application/json")], ca_pem=ca_pem, allow=allow)
    if heard.status != 200:
        raise InvalidRequest(f"the issuer answered with the status {heard.status}", "check the URL")
    return heard.body


@dataclass(slots=True)
class Configured:
    """Handlers of the settings of a mount."""

    issuer: Issuer = field(default_factory=Issuer)

    async def read(self, context: Context, _call: Call) -> Reply:
        """The settings, without the secret."""
        item = await context.storage.get_one(PATH)
        if item.data is None:
            raise NotFound("nothing was configured")
        return Reply(settings.show(SETTINGS, json.loads(item.data)))

    async def write(self, context: Context, call: Call) -> None:
        """All settings at once: what is not sent is as if it had never been. Keys are asked for before it counts."""
        item = await context.storage.get_one(PATH)
        before = json.loads(item.data) if item.data is not None else {}
        after = {each.name: each.default for each in SETTINGS}
        for each in SETTINGS:
            if call.data.get(each.name) is not None:
                after[each.name] = each.parse(call.data[each.name], each.name)
        named = [name for name in _SOURCES if after[name]]
        if len(named) != 1:
            raise InvalidRequest(
                "exactly one of 'oidc_discovery_url', 'jwks_url' or 'jwt_validation_pubkeys' must be set"
                " (not both or neither)",
                "name the issuer, its keys' address, or its keys",
            )
        secret = call.data.get("oidc_client_secret") or ""
        if bool(after["oidc_client_id"]) != bool(secret):
            raise InvalidRequest("both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC")
        if secret and named != ["oidc_discovery_url"]:
            raise InvalidRequest("'oidc_discovery_url' must be set for OIDC")
        trusted = is_trusted(context, call)
        hosts = [asked_host(after[name], name, trusted=trusted) for name in named if name != _SOURCES[2]]
        after |= {"allow": hosts if trusted else [], "oidc_client_secret": text(secret, "oidc_client_secret")}
        after["state_key"] = before.get("state_key") or os.urandom(32).hex()
        if hosts:
            try:
                await ask(context, after, after["allow"])
            except KeyholeError as error:
                kind = "jwks URL" if after["jwks_url"] else "oidc discovery URL"
                raise InvalidRequest(f"error checking {kind}: {error.reason}", error.hint) from None
        await context.storage.change([(PATH, json.dumps(after).encode(), item.revision)])
