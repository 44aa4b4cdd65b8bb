"""Azure Key Vault: the current version of a secret (REST API 7.4), by the client credentials of an application.

RFC 6749, section 4.4, at Microsoft's identity platform. Names there are the same in upper and lower case, so a path is
in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from keyhole.engines.external.kinds import (
    fields_of,
    joined,
    nothing_there,
    require,
    require_credentials,
    require_path,
    require_word,
)
from keyhole.engines.external.logins import Login
from keyhole.engines.external.source import Answer, Source
from keyhole.engines.settings import text

SETTINGS = (
    text("address", about="https://NAME.vault.azure.net"),
    text("tenant", about="id or domain of the tenant"),
    text("client_id", about="of the application"),
    text("authority", "https://login.microsoftonline.com", "where it logs in"),
    text("scope", "https://vault.azure.net/.default", "what the access token is asked for"),
)
CREDENTIALS = ("client_secret",)
_NAME = re.compile(r"[0-9a-z-]{1,127}")
_TENANT = re.compile(r"[A-Za-z0-9.-]{1,255}")
_FORM = (("Content-Type", "application/x-www-form-urlencoded"),)


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "address", "tenant", "client_id", "authority", "scope")
    require_word(options["tenant"], "tenant", _TENANT)
    require_credentials(credentials, CREDENTIALS)


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["address"], options["authority"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    require_path(path, _NAME, "lower case letters, digits and dashes")
    url = joined(source.options["address"], "secrets", path) + "?api-version=7.4"

    async def ask(token: str) -> Answer:
        return await source.ask("GET", url, headers=(("Authorization", f"Bearer {token}"),))

    answer = await source.logged_in(lambda: _log_in(source), ask)
    if answer.status == 404:
        raise nothing_there(source)
    if answer.status != 200 or not isinstance(answer.at("value"), str):
        raise source.refusal(answer, "give the application the role Key Vault Secrets User there; is it enabled?")
    return fields_of(answer.text("value"))


async def probe(source: Source) -> None:
    """Log in."""
    await _log_in(source)


async def _log_in(source: Source) -> Login:
    options = source.options
    fields = {"grant_type": "client_credentials", "client_id": options["client_id"], "scope": options["scope"]}
    body = urlencode({**fields, "client_secret": source.credentials["client_secret"].strip()}).encode()
    url = joined(options["authority"], options["tenant"], "oauth2", "v2.0", "token")
    answer = await source.ask("POST", url, headers=_FORM, body=body)
    return source.login_from(answer, "access_token", seconds=("expires_in",))
