"""HashiCorp Vault, OpenBao, or another Keyhole: KV of either version, or any path that can be read.

Vault's HTTP API: "Authentication", "KV secrets engine". A path of this source lies below ``mount``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.engines.external.kinds import joined, nothing_there, require, require_credentials
from keyhole.engines.external.logins import Login
from keyhole.engines.external.source import Answer, Source
from keyhole.engines.settings import text

SETTINGS = (
    text("address", about="https://HOST[:PORT] of the server"),
    text("mount", "secret", "of the engine there; empty for paths from the root of the API, with version any"),
    text("version", "2", "of its KV engine, 1 or 2; or any, for whatever a read answers"),
    text("namespace", about="namespace there"),
    text("auth", "token", "token, approle, jwt or kubernetes"),
    text("auth_mount", about="path of the login method there; as the method's name unless said"),
    text("role", about="role of a login by jwt or kubernetes"),
    text("jwt_file", about="file on the server with the token of a workload; it takes sudo"),
)
CREDENTIALS = ("token", "role_id", "secret_id", "jwt")
_VERSIONS = ("1", "2", "any")
_AUTH = {"token": ("token",), "approle": ("role_id", "secret_id"), "jwt": ("jwt",), "kubernetes": ("jwt",)}
_MAX_TOKEN = 16 * 1024
_NEEDED = "let its policies there read this path"


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "address")
    if options["version"] not in _VERSIONS or options["auth"] not in _AUTH:
        raise InvalidRequest("version is 1, 2 or any; auth is token, approle, jwt or kubernetes", "choose one of them")
    if options["version"] != "any":
        require(options, "mount")
    if options["auth"] in {"jwt", "kubernetes"}:
        require(options, "role")
    if options["jwt_file"]:
        if not Path(options["jwt_file"]).is_absolute() or options["auth"] not in {"jwt", "kubernetes"}:
            raise InvalidRequest("jwt_file is an absolute path, for a login by jwt or kubernetes", "check both")
        return
    require_credentials(credentials, _AUTH[options["auth"]])


def needs_sudo(options: Mapping[str, Any]) -> str:
    """A file of the server is not everybody's to send away."""
    return "naming a file of the server" if options["jwt_file"] else ""


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["address"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    version = source.options["version"]
    inner = ["data", *path.split("/")] if version == "2" else path.split("/")
    segments = [each for each in source.options["mount"].split("/") if each] + inner
    answer = await _asked(source, "GET", joined(source.options["address"], "v1", *segments))
    found = answer.at("data", "data") if version == "2" else answer.at("data")
    if answer.status == 404 or (answer.status == 200 and not isinstance(found, dict)):
        raise nothing_there(source)
    if answer.status != 200:
        raise source.refusal(answer, _NEEDED)
    return dict(found)


async def probe(source: Source) -> None:
    """Log in, and look up what came of it."""
    answer = await _asked(source, "GET", joined(source.options["address"], "v1", "auth", "token", "lookup-self"))
    if answer.status != 200:
        raise source.refusal(answer, "let its policies there read auth/token/lookup-self, and see that it is valid")


async def _asked(source: Source, method: str, url: str) -> Answer:
    async def ask(token: str) -> Answer:
        return await source.ask(method, url, headers=(*_headers(source), ("X-Vault-Token", token)))

    if source.options["auth"] == "token":
        return await ask(source.credentials["token"].strip())
    return await source.logged_in(lambda: _log_in(source), ask)


async def _log_in(source: Source) -> Login:
    options = source.options
    if options["auth"] == "approle":
        body = {name: source.credentials[name] for name in ("role_id", "secret_id")}
    else:
        body = {"role": options["role"], "jwt": source.credentials.get("jwt") or await _jwt_from(source)}
    mount = (options["auth_mount"] or options["auth"]).strip("/").split("/")
    url = joined(options["address"], "v1", "auth", *mount, "login")
    answer = await source.ask("POST", url, headers=_headers(source), json_body=body)
    return source.login_from(answer, "auth", "client_token", seconds=("auth", "lease_duration"))


def _headers(source: Source) -> tuple[tuple[str, str], ...]:
    namespace = source.options["namespace"]
    return (("X-Vault-Request", "true"), *((("X-Vault-Namespace", namespace),) if namespace else ()))


async def _jwt_from(source: Source) -> str:
    def read() -> bytes:
        with Path(source.options["jwt_file"]).open("rb") as file:
            return file.read(_MAX_TOKEN + 1)

    try:
        found = (await asyncio.to_thread(read)).strip()
    except OSError as error:
        raise TargetFailed(
            f"the token file of the source {source.name!r} cannot be read: {error.strerror}", "see that it is there"
        ) from None
    if not found or len(found) > _MAX_TOKEN or not found.isascii():
        raise TargetFailed(f"the token file of the source {source.name!r} holds no token", "see what lies there")
    return found.decode()
