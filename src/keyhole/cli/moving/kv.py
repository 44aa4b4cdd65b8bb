"""The KV engine of a running Vault, OpenBao or Keyhole: read from its root down, and written.

Vault's HTTP API: "KV secrets engine", versions 1 and 2. The host is the one that the caller named, and may be of a
private network for that reason; no redirect is followed to another.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlsplit

from keyhole.cli.moving.batch import Batch
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied, UpstreamUnreachable
from keyhole.core.path import parse_field, parse_path
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.core.value import Secret
from keyhole.importers import LIMITS, Found
from keyhole.importers.collect import Collector, shown
from keyhole.importers.found import Item, Origin
from keyhole.net.ask import Asker, AskLimits, Heard

_ANSWER = AskLimits(seconds=30.0, body=8 * 1024 * 1024)
_BOUNDS = JsonBounds(LIMITS.depth, _ANSWER.body, LIMITS.nodes)
_MOST_FOLDERS = 2_000
_DEEPEST = 32
_AT_ONCE = 8


@dataclass(frozen=True)
class Server:
    """A server and who asks it.

    Attributes:
        address: ``https://HOST[:PORT]``; ``http://`` on this machine only.
        token: of the caller there.
        namespace: there; empty for the token's own.
        mount: path of the KV engine.
        version: 1 or 2; 0 to ask the server.
        ca_pem: certificates that alone prove the server; empty for those of the system.
    """

    address: str
    token: Secret = field(repr=False)
    namespace: str = ""
    mount: str = "secret"
    version: int = 0
    ca_pem: str = ""

    @functools.cached_property
    def _asker(self) -> Asker:
        return Asker(limits=_ANSWER)

    async def ask(self, method: str, *segments: str, query: str = "", data: Mapping[str, Any] | None = None) -> Heard:
        """One request below ``/v1``. Raises ``UpstreamUnreachable`` and other refusals of ``net``."""
        host = urlsplit(self.address).hostname or ""
        path = "/".join(quote(part, safe="") for segment in segments for part in segment.split("/") if part)
        headers = [("X-Vault-Token", self.token.reveal().decode()), ("X-Vault-Request", "true")]
        headers += [("X-Vault-Namespace", self.namespace)] if self.namespace else []
        body = b"" if data is None else json.dumps(data).encode()
        headers += [("Content-Type", "application/json")] if body else []
        url = f"{self.address.rstrip('/')}/v1/{path}{query}"
        heard = await self._asker.ask(method, url, headers=headers, body=body, ca_pem=self.ca_pem, allow=(host,))
        if heard.status == 403:
            raise PolicyDenied(f"the server at {host} refuses {method} of {path}", "let its policies allow that path")
        if heard.status >= 300 and heard.status != 404:
            raise UpstreamUnreachable(
                f"the server at {host} answers {heard.status} to {method} of {path}", "see its log"
            )
        return heard

    async def kv_version(self) -> int:
        """Of the engine at the mount."""
        if self.version:
            return self.version
        try:
            answer = _data(await self.ask("GET", "sys/internal/ui/mounts", self.mount))
        except KeyholeError as error:
            raise InvalidRequest(
                f"the server does not say which version its KV has: {error.reason}", "--kv 1 or 2"
            ) from None
        options, kind = answer.get("options"), answer.get("type")
        if kind not in {"kv", "generic", None}:
            raise InvalidRequest(f"what is mounted at {self.mount} is no KV engine", "--mount PATH of one")
        return 2 if isinstance(options, dict) and str(options.get("version")) == "2" else 1


def _data(heard: Heard) -> dict[str, Any]:
    """The ``data`` of an answer; empty where nothing is there. That of a deleted version comes with 404."""
    try:
        found = parse_object(heard.body, _BOUNDS).get("data")
    except InvalidRequest:
        if heard.status == 200:
            raise UpstreamUnreachable("the server answers something that is no JSON", "is it a Vault?") from None
        return {}
    return found if isinstance(found, dict) else {}


def read(server: Server, below: str = "") -> Batch:
    """Every secret below a path, its current version.

    Raises:
        InvalidRequest: it is no KV engine, or has more than is taken at once.
        KeyholeError: the server refuses, or cannot be reached.
    """
    return asyncio.run(_read(server, below.strip("/")))


async def _read(server: Server, below: str) -> Batch:
    version = await server.kv_version()
    host = urlsplit(server.address).hostname or ""
    collector = Collector(Origin(host))
    found = list[Found]()

    async def one(path: str) -> Found | None:
        try:
            return await _secret(server, version, parse_path(path), collector)
        except (InvalidRequest, PolicyDenied) as error:
            collector.skip(path, server.mount, error.reason)
            return None

    paths = await _paths(server, version, below, collector)
    for start in range(0, len(paths), _AT_ONCE):
        taken = await asyncio.gather(*map(one, paths[start : start + _AT_ONCE]))
        found += [each for each in taken if each is not None]
    if not found and not collector.report().skipped:
        raise NotFound(f"there is nothing below {server.mount}/{below}", "--mount PATH, or another path")
    return Batch(f"{host}, {server.mount}", found, list(collector.report().skipped))


async def _paths(server: Server, version: int, below: str, collector: Collector) -> list[str]:
    """The names of secrets, folder by folder."""
    found, folders, asked = list[str](), [f"{below}/" if below else ""], 0
    if below:
        found.append(below)
    while folders:
        folder = folders.pop(0)
        asked += 1
        if asked > _MOST_FOLDERS or len(found) > LIMITS.entries or folder.count("/") > _DEEPEST:
            raise InvalidRequest("there are more secrets or folders than are taken at once", "name a path below them")
        words = (server.mount, "metadata", folder) if version == 2 else (server.mount, folder)
        try:
            keys = _data(await server.ask("GET", *words, query="?list=true")).get("keys")
        except PolicyDenied as error:
            collector.skip(folder or "/", server.mount, error.reason)
            continue
        for key in keys if isinstance(keys, list) else ():
            if not isinstance(key, str) or not key.strip("/"):
                continue
            (folders if key.endswith("/") else found).append(f"{folder}{key}")
    return found


async def _secret(server: Server, version: int, path: str, collector: Collector) -> Found | None:
    words = (server.mount, "data", path) if version == 2 else (server.mount, path)
    answer = _data(await server.ask("GET", *words))
    data, metadata = (answer.get("data"), answer.get("metadata")) if version == 2 else (answer, {})
    if not isinstance(data, dict) or not data:
        if answer or version == 1:
            collector.skip(path, server.mount, "its current version is deleted, or has no fields")
        return None
    labels = metadata.get("custom_metadata") if isinstance(metadata, dict) else None
    fields = dict[str, Secret]()
    for name, value in data.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if not collector.refused(f"{path}#{name}", text, server.mount, references=False):
            fields[parse_field(name)] = Secret(text)
    if not fields:
        return None
    texts = {str(k): v for k, v in labels.items() if isinstance(v, str)} if isinstance(labels, dict) else {}
    return Found(path, fields, f"{server.mount}/{shown(path)}", kind="custom", labels=texts)


UNCHANGED, STORED, REPLACED, CONFLICT, WOULD = "already there", "stored", "replaced", "conflict", "would be stored"


def write(server: Server, items: Sequence[Item], *, over: bool, dry: bool) -> list[tuple[str, str]]:
    """Store secrets there; each name with what became of it. A new version only where that is wanted.

    Raises:
        KeyholeError: the server refuses, or cannot be reached; what was stored until then stays.
    """
    return asyncio.run(_write(server, items, over=over, dry=dry))


async def _write(server: Server, items: Sequence[Item], *, over: bool, dry: bool) -> list[tuple[str, str]]:
    version = await server.kv_version()
    done = list[tuple[str, str]]()
    for item in items:
        words = (server.mount, "data", item.name) if version == 2 else (server.mount, item.name)
        answer = _data(await server.ask("GET", *words))
        present, metadata = (answer.get("data"), answer.get("metadata")) if version == 2 else (answer or None, {})
        if present == dict(item.fields):
            done.append((item.name, UNCHANGED))
        elif present and not over:
            done.append((item.name, CONFLICT))
        elif dry:
            done.append((item.name, WOULD))
        else:
            now = metadata.get("version", 0) if isinstance(metadata, dict) else 0
            body = {"data": dict(item.fields), "options": {"cas": now}} if version == 2 else dict(item.fields)
            await server.ask("POST", *words, data=body)
            done.append((item.name, REPLACED if present else STORED))
    return done


def named_under(found: Found, under: str) -> Found:
    """The same with another part before its name."""
    return replace(found, name=f"{under}/{found.name}")
