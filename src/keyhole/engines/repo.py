"""Repo vaults as mounts: their secrets are lent, listed and recorded like any other's.

``config`` names the folder of a vault on this machine and the key that opens it, and ``data/GROUP/NAME`` reveals a
secret; a service that names ``/MOUNT/data/GROUP/NAME`` lends it. Everything is verified anew for each request, and
nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from keyhole.config import home
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.fields import parse_text
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.request import Limits, Operation, Reply
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.engines import Call, Context, Engine, Field, Route
from keyhole.engines.outside import is_of_server
from keyhole.repo import keys
from keyhole.repo.documents import instant
from keyhole.repo.kept import KEYCHAIN
from keyhole.repo.opened import Opened, open_vault
from keyhole.repo.refusals import FOLDER_OF_VAULT, recording

_CONFIG = "config"


async def _configured(context: Context) -> dict[str, Any]:
    item = await context.storage.get_one(_CONFIG)
    if item.data is None:
        raise NotFound(
            "this mount does not know its vault yet", f"write {context.mount}config: path, and key_file or key"
        )
    found: dict[str, Any] = json.loads(item.data)
    return found


def _identity(config: dict[str, Any]) -> Identity:
    return age.find_identity(config["key"]) if config["key"] else keys.load_unattended(os.environ, config["key_file"])


def _open(config: dict[str, Any]) -> Opened:
    return open_vault(Path(config["path"]), home())


def _names(config: dict[str, Any]) -> list[str]:
    """Of all secrets, as their members say them."""
    opened = _open(config)
    if opened.opaque:
        opened.unlock(_identity(config))
    return sorted(map(opened.shown, opened.names()))


async def write_config(context: Context, call: Call) -> None:
    """Says where the vault is and which key opens it. Both are files of the server: it takes sudo in the org root."""
    if not is_of_server(context, call):
        raise PolicyDenied(
            "naming files of this machine takes sudo on the config, in the org root", "ask an administrator"
        )
    path, key_file = parse_text(call.data.get("path"), "path"), parse_text(call.data.get("key_file"), "key_file")
    key = parse_text(call.data.get("key"), "key")
    named = not key_file or key_file.startswith(KEYCHAIN) or Path(key_file).is_absolute()
    if not Path(path).is_absolute() or bool(key) == bool(key_file) or not named:
        raise InvalidRequest(
            "config takes the absolute path of a vault, and a key, the absolute path of its file, or keychain:NAME",
            'send {"path": "/home/me/team", "key_file": "/home/me/.agent-vault/owner.key"}',
        )
    config = {"path": path, "key_file": key_file, "key": key}
    await asyncio.to_thread(lambda: (_open(config), _identity(config)))
    item = await context.storage.get_one(_CONFIG)
    await context.storage.change([(_CONFIG, json.dumps(config).encode(), item.revision)])


async def read_config(context: Context, _call: Call) -> Reply:
    """Where the vault is, and who the key is in it; never the key."""
    config = await _configured(context)

    def look() -> dict[str, Any]:
        opened, identity = _open(config), _identity(config)
        member = None if opened.members is None else opened.members.of(identity.recipient)
        opened.unlock(identity)
        who = {"name": opened.shown(member.name), "role": member.role.value} if member is not None else None
        return {"signed": opened.signed, "member": who, "recipient": identity.recipient.text}

    shown = {name: config[name] for name in ("path", "key_file") if config[name]}
    return Reply({**shown, **await asyncio.to_thread(look)})


async def read(context: Context, call: Call) -> Reply:
    """A secret, with what is known of it."""
    config, name = await _configured(context), call.params["path"]

    def find() -> tuple[dict[str, Any], Limits]:
        opened, identity = _open(config), _identity(config)
        opened.unlock(identity)
        with recording(Path(config["path"]), home(), FOLDER_OF_VAULT):
            value = opened.get(name, [identity])
        meta = opened.meta(name)
        try:
            text = value.reveal().decode()
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"the value of {name} is not text in UTF-8", "it can be read with: keyhole repo get"
            ) from None
        found: dict[str, Any] = {DEFAULT_FIELD: Secret(json.dumps(text))}
        if meta is not None:
            found |= {
                "group": opened.shown(meta.group),
                "created": instant(meta.created),
                "rotated": instant(meta.rotated),
            }
        return found, opened.hosts(name)

    data, hosts = await asyncio.to_thread(find)
    return Reply(data, hosts=hosts)


async def hosts_of(context: Context, path: str) -> Limits:
    """Where alone a secret may be lent to: the hosts of its groups."""
    config = await _configured(context)

    def find() -> Limits:
        opened = _open(config)
        if opened.opaque:
            opened.unlock(_identity(config))
        return opened.hosts(path)

    return await asyncio.to_thread(find)


async def list_names(context: Context, call: Call) -> Reply:
    """Names below a path; groups end in a slash. Opens nothing."""
    config, prefix = await _configured(context), call.params.get("path", "").strip("/")
    names = await asyncio.to_thread(lambda: _names(config))
    if prefix:
        below = [name.removeprefix(f"{prefix}/") for name in names if name.startswith(f"{prefix}/")]
    else:
        below = sorted({f"{name.partition('/')[0]}/" for name in names})
    if not below:
        raise NotFound("there is nothing here")
    return Reply({"keys": below})


ENGINE = Engine(
    "repo",
    (
        Route(
            "config",
            {Operation.READ: read_config, Operation.CREATE: write_config},
            fields=(
                Field("path", "absolute path of the folder that has .agent-vault", "string"),
                Field("key_file", "absolute path of the file with the key that opens it, or keychain:NAME", "string"),
                Field("key", "the key itself, instead of its file; it is never shown again", "string"),
            ),
            help="Which repo vault this is, and the key that opens it.",
        ),
        Route("data", {Operation.LIST: list_names}, help="Groups of secrets."),
        Route(
            "data/{path...}",
            {Operation.READ: read, Operation.LIST: list_names},
            help="A secret of the vault; names in a group.",
            source=DEFAULT_FIELD,
        ),
    ),
    hosts=hosts_of,
)
