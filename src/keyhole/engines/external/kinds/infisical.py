"""Infisical: one secret of an environment (API v3, raw), by universal auth or a token. A path is FOLDERS/NAME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from keyhole.engines.external.kinds import fields_of, joined, nothing_there, require, require_credentials
from keyhole.engines.external.logins import Login
from keyhole.engines.external.source import Answer, Source
from keyhole.engines.settings import text

SETTINGS = (
    text("address", "https://app.infisical.com", "of the API"),
    text("project_id", about="id of the project"),
    text("environment", about="slug of the environment, such as prod"),
    text("client_id", about="of a machine identity"),
)
CREDENTIALS = ("client_secret", "token")


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "address", "project_id", "environment")
    require_credentials(credentials, ("client_secret",), ("token",))
    if "token" not in credentials:
        require(options, "client_id")


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["address"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    folder, _, name = path.rpartition("/")
    asked = {"workspaceId": source.options["project_id"], "environment": source.options["environment"]}
    asked |= {"secretPath": f"/{folder}", "type": "shared"}
    url = joined(source.options["address"], "api", "v3", "secrets", "raw", name) + f"?{urlencode(asked)}"

    async def ask(token: str) -> Answer:
        return await source.ask("GET", url, headers=(("Authorization", f"Bearer {token}"),))

    if "token" in source.credentials:
        answer = await ask(source.credentials["token"].strip())
    else:
        answer = await source.logged_in(lambda: _log_in(source), ask)
    if answer.status == 404:
        raise nothing_there(source)
    if answer.status != 200:
        raise source.refusal(answer, "let the identity read secrets of this environment")
    value = answer.at("secret", "secretValue")
    if answer.text("secret", "secretKey") != name or not isinstance(value, str):
        raise nothing_there(source)
    return fields_of(value)


async def probe(source: Source) -> None:
    """Log in, where that is a step of its own."""
    if "token" not in source.credentials:
        await _log_in(source)


async def _log_in(source: Source) -> Login:
    body = {"clientId": source.options["client_id"], "clientSecret": source.credentials["client_secret"].strip()}
    url = joined(source.options["address"], "api", "v1", "auth", "universal-auth", "login")
    return source.login_from(await source.ask("POST", url, json_body=body), "accessToken", seconds=("expiresIn",))
