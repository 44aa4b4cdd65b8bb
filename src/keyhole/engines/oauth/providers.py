"""The providers that are known by name. What is known of them is data, in ``providers.toml``."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Reply
from keyhole.engines import Call, Context

ENDPOINTS = ("authorize", "token", "device", "revoke")
_PARAMETER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of a provider; ``providers.toml`` says what each field means."""

    title: str = ""
    issuer: str = ""
    authorize: str = ""
    token: str = ""
    device: str = ""
    revoke: str = ""
    client_auth: str = ""
    authorize_params: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    scope_separator: str = " "
    unlisted: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    token_types: tuple[str, ...] = ()
    json: bool = False
    errors: Mapping[str, str] = field(default_factory=dict)
    docs: str = ""

    def urls(self, given: Mapping[str, str]) -> dict[str, str]:
        """The endpoints that there are, and the issuer, with these parameters. Raises ``InvalidRequest``."""
        unknown = sorted(given.keys() - self.parameters.keys())
        if unknown:
            has = ", ".join(self.parameters) or "none"
            raise InvalidRequest(f"{self.title} has no parameter {unknown[0][:40]!r}", f"it has {has}")
        values = {name: given.get(name) or default for name, default in self.parameters.items()}
        for name, value in values.items():
            if not _PARAMETER.fullmatch(value) or ".." in value:
                raise InvalidRequest(
                    f"the parameter {name} of {self.title} is missing, or is not a name", f'"parameters": "{name}=…"'
                )
        found = {name: getattr(self, name) for name in (*ENDPOINTS, "issuer")}
        return {name: url.format_map(values) for name, url in found.items() if url}


UNNAMED = Provider()


@functools.cache
def known() -> Mapping[str, Provider]:
    """All of them by name."""
    text = resources.files("keyhole.engines.oauth").joinpath("providers.toml").read_text("utf-8")
    tables: dict[str, dict[str, Any]] = tomllib.loads(text)
    for table in tables.values():
        table |= {name: tuple(table[name]) for name in ("unlisted", "token_types") if name in table}
    return {name: Provider(**table) for name, table in tables.items()}


def named(name: str) -> Provider:
    """The provider of a name; an empty one has nothing of its own. Raises ``InvalidRequest``."""
    if not name:
        return UNNAMED
    provider = known().get(name)
    if provider is None:
        raise InvalidRequest(
            f"there is no provider {name[:40]!r} in the catalog",
            f"there are {', '.join(known())}; or say issuer, or authorize_url and token_url",
        )
    return provider


async def list_names(_context: Context, _call: Call) -> Reply:
    """Names of the providers, with their titles."""
    return Reply({"keys": list(known()), "key_info": {name: {"title": each.title} for name, each in known().items()}})


async def show(_context: Context, call: Call) -> Reply:
    """What is known of one."""
    provider = known().get(call.params["name"])
    if provider is None:
        raise NotFound("there is no such provider in the catalog", "keyhole oauth providers")
    return Reply(described(provider))


def described(provider: Provider) -> dict[str, Any]:
    """What is known of a provider, JSON-ready."""
    return {
        "title": provider.title,
        **{f"{name}_url": getattr(provider, name) for name in ENDPOINTS},
        "issuer": provider.issuer,
        "client_auth": provider.client_auth,
        "authorize_params": dict(provider.authorize_params),
        "parameters": dict(provider.parameters),
        "docs": provider.docs,
    }
