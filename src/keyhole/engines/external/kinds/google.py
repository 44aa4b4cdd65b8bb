"""Google Secret Manager: the latest version of a secret (v1), by the JSON key of a service account (RFC 7523)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from keyhole.core.errors import TargetFailed
from keyhole.core.path import DEFAULT_FIELD
from keyhole.crypto.jws import sign_jwt
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
    text("project", about="id of the project"),
    text("endpoint", "https://secretmanager.googleapis.com", "of the service; regional secrets have others"),
    text("token_url", "https://oauth2.googleapis.com/token", "where the service account gets its access token"),
)
CREDENTIALS = ("service_account",)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_PROJECT = re.compile(r"[a-z0-9:.-]{1,100}")
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
_LIFE = 3500
_BACKDATED = 60


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "project", "endpoint", "token_url")
    require_word(options["project"], "project", _PROJECT)
    require_credentials(credentials, CREDENTIALS)


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["endpoint"], options["token_url"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    require_path(path, _NAME, "letters, digits, _ and -")
    named = ("projects", source.options["project"], "secrets", path, "versions")
    url = joined(source.options["endpoint"], "v1", *named) + "/latest:access"

    async def ask(token: str) -> Answer:
        return await source.ask("GET", url, headers=(("Authorization", f"Bearer {token}"),))

    answer = await source.logged_in(lambda: _log_in(source), ask)
    if answer.status == 404:
        raise nothing_there(source)
    encoded = answer.text("payload", "data")
    if answer.status != 200 or not encoded:
        needed = "give the account roles/secretmanager.secretAccessor; is the latest version enabled?"
        raise source.refusal(answer, needed)
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise nothing_there(source) from None
    try:
        return fields_of(content.decode())
    except UnicodeDecodeError:
        return {DEFAULT_FIELD: encoded}


async def probe(source: Source) -> None:
    """Log in."""
    await _log_in(source)


async def _log_in(source: Source) -> Login:
    try:
        account = json.loads(source.credentials["service_account"])
        email, key = account["client_email"], account["private_key"]
    except (ValueError, RecursionError, KeyError, TypeError):
        email = key = None
    if not isinstance(email, str) or not isinstance(key, str):
        raise TargetFailed(
            f"the credential of the source {source.name!r} is not the JSON key of a service account",
            "write the whole file, as it was downloaded",
        )
    now, url = int(source.context.now), source.options["token_url"]
    claims = {"iss": email, "aud": url, "iat": now - _BACKDATED, "exp": now + _LIFE, "scope": _SCOPE}
    key_id = account.get("private_key_id")
    signed = sign_jwt(key.encode(), "RS256", claims, key_id=key_id if isinstance(key_id, str) else "")
    body = urlencode({"grant_type": _GRANT, "assertion": signed.decode()}).encode()
    return source.login_from(
        await source.ask("POST", url, headers=_FORM, body=body), "access_token", seconds=("expires_in",)
    )
