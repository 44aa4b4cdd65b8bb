"""What the two kinds of AWS share: signed calls of its JSON protocol, by keys of the source or of the server itself.

The protocol is "AWS JSON 1.1 protocol".
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.crypto.sigv4 import authorization_of_post
from keyhole.engines.external.kinds import nothing_there, require, require_credentials, require_word
from keyhole.engines.external.source import Source
from keyhole.engines.settings import switch, text
from keyhole.net.ask import parse_https

SETTINGS = (
    text("region", about="such as eu-central-1"),
    text("endpoint", about="https://HOST of the service; that of the region unless said"),
    switch("own_identity", "ask as the server itself, with the identity that AWS gives it; it takes sudo"),
)
CREDENTIALS = ("access_key_id", "secret_access_key", "session_token")
_REGION = re.compile(r"[a-z]{2}[a-z0-9-]{2,40}")
_SECONDS = 10.0
_MISSING = frozenset({"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"})
_THROTTLED = frozenset({"ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"})


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "region")
    require_word(options["region"], "region", _REGION)
    if not options["own_identity"]:
        require_credentials(credentials, ("access_key_id", "secret_access_key"))
    elif credentials:
        raise InvalidRequest("own_identity goes without credentials", "leave one of the two out")
    elif importlib.util.find_spec("boto3") is None:
        raise InvalidRequest("own_identity needs boto3", "pip install 'keyhole[aws]'")


def needs_sudo(options: Mapping[str, Any]) -> str:
    """What the server may do is more than what whoever writes a source may."""
    return "asking AWS as the server itself" if options["own_identity"] else ""


def endpoint(options: Mapping[str, Any], service: str) -> str:
    """URL of a service."""
    return options["endpoint"] or f"https://{service}.{options['region']}.amazonaws.com"


async def call(source: Source, service: str, target: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """One signed call; gives what was answered.

    Raises:
        NotFound: AWS has nothing by that name.
        TargetFailed: AWS refuses, and why by its own code.
    """
    url = endpoint(source.options, service)
    place = parse_https(url, plain=source.allow)
    body = json.dumps(asked).encode()
    keys = await _own_keys(source) if source.options["own_identity"] else dict(source.credentials)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(source.context.now))
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-date": moment, "x-amz-target": target}
    if keys.get("session_token"):
        headers["x-amz-security-token"] = keys["session_token"].strip()
    headers["authorization"] = authorization_of_post(
        {**headers, "host": place.header},
        place.target,
        body,
        key_id=keys["access_key_id"].strip(),
        secret=keys["secret_access_key"].strip().encode(),
        region=source.options["region"],
        service=service,
    )
    answer = await source.ask("POST", url, headers=tuple(headers.items()), body=body)
    if answer.status == 200 and isinstance(answer.data, dict):
        return answer.data
    code = (answer.text("__type") or answer.text("code")).rpartition("#")[2]
    if code in _MISSING:
        raise nothing_there(source)
    if code in _THROTTLED:
        raise TargetFailed(f"the source {source.name!r} was asked too often", "wait, or raise its limit there")
    known = code if re.fullmatch(r"[A-Za-z]{3,60}", code) else str(answer.status)
    raise TargetFailed(
        f"the source {source.name!r} refuses ({known})",
        f"check its keys and region, and that they may {target.rpartition('.')[2]} and decrypt",
    )


async def _own_keys(source: Source) -> dict[str, str]:
    """The keys of the server's own identity, by boto3's usual search, in a thread that is not waited for in vain."""

    def find() -> dict[str, str] | None:
        session = importlib.import_module("boto3").session.Session()
        found = session.get_credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
        keys = (frozen.access_key, frozen.secret_key, frozen.token)
        return dict(zip(CREDENTIALS, (each or "" for each in keys), strict=True))

    try:
        keys = await asyncio.wait_for(asyncio.to_thread(find), _SECONDS)
    except Exception:  # noqa: BLE001 - whatever the library says may quote the keys
        keys = None
    if keys is None:
        raise TargetFailed(
            f"the server has no identity in AWS for the source {source.name!r}", "run it with a role, or write keys"
        )
    return keys
