"""``mcp install`` and ``mcp uninstall``: our servers in the configurations of clients, and out of them again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.mcp.clients import (
    CLIENTS,
    GATEWAY,
    NAME,
    McpClient,
    has_server,
    read,
    with_server,
    without_server,
    write,
)
from keyhole.cli.mcp.noun import mcp
from keyhole.cli.names import agents
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.tool_server import parse_server_name

_KNOWN = {client.name: client for client in CLIENTS}
_PATHS = ("KEYHOLE_HOME", "KEYHOLE_CACERT", "KEYHOLE_UPSTREAM_CA")
_OF_FILES = ("keyfile", "age")  # seals whose place is a path
_NAMES = ("KEYHOLE_RESOLVE", "KEYHOLE_RESOLVER")
_ARGUMENT = click.argument("clients", nargs=-1, type=click.Choice(sorted(_KNOWN)), metavar="[CLIENT]…")


@mcp.command(
    "install",
    examples="""
    keyhole mcp install
    keyhole mcp install claude-desktop cursor --agent coder
    keyhole mcp install --gateway --agent coder
    keyhole mcp install --gateway --server github --print
    """,
)
@_ARGUMENT
@click.option("--agent", shell_complete=agents, default=DEFAULT_AGENT, show_default=True, help="Whose tools to serve.")
@click.option("--gateway", is_flag=True, help="The servers of keyhole mcp server, by the gateway, under its own name.")
@click.option("--server", "servers", multiple=True, metavar="NAME", help="With --gateway: these servers only.")
@click.option("--print", "show", is_flag=True, help="Show what would be written, and write nothing.")
@pass_session
def install(
    session: Session, /, *, clients: tuple[str, ...], agent: str, gateway: bool, servers: tuple[str, ...], show: bool
) -> None:
    """Add our server, or the gateway, to the configurations of MCP clients; of all that are here, unless named.

    Everything else in them stays as it is, and no secret is written: the client starts this program, which opens the
    vault as you do. Start the client again afterwards.
    """
    if servers and not gateway:
        raise InvalidRequest("servers stand behind the gateway", "say --gateway --server NAME")
    for server in servers:
        session.client.read(f"tools/servers/{parse_server_name(server)}")
    name, face = (GATEWAY, "gateway") if gateway else (NAME, "serve")
    only = [word for server in servers for word in ("--server", server)]
    entry: dict[str, Any] = {"command": _program(), "args": [*_vault(session), "mcp", face, "--agent", agent, *only]}
    if settings := _settings(os.environ):
        entry["env"] = settings
    if show:
        session.out.result(entry, json.dumps({"mcpServers": {name: entry}}, indent=2))
        return
    _change(session, clients, lambda client, text: with_server(client, text, entry, name), "added to")


@mcp.command("uninstall", examples="keyhole mcp uninstall\nkeyhole mcp uninstall cursor --gateway")
@_ARGUMENT
@click.option("--gateway", is_flag=True, help="The gateway only, and not keyhole mcp serve.")
@pass_session
def uninstall(session: Session, /, *, clients: tuple[str, ...], gateway: bool) -> None:
    """Take our server and the gateway out of the configurations of MCP clients again; of all, unless named."""
    names = (GATEWAY,) if gateway else (NAME, GATEWAY)

    def without(client: McpClient, text: str) -> str:
        for name in names:
            text = without_server(client, text, name)
        return text

    _change(session, clients, without, "taken out of", there=names)


def _change(
    session: Session,
    names: tuple[str, ...],
    make: Callable[[McpClient, str], str],
    what: str,
    *,
    there: Sequence[str] = (),
) -> None:
    made: list[tuple[McpClient, Path, str, str]] = []
    for client, path in _found(names):  # all are understood before one is changed
        text = read(path)
        if there and not any(has_server(client, text, name) for name in there):
            continue
        made.append((client, path, text, make(client, text)))
    done: list[dict[str, Any]] = []
    for client, path, text, after in made:
        if after != text:
            write(path, after)
        done.append({"client": client.name, "path": str(path), "changed": after != text})
    lines = [f"{what} {_KNOWN[each['client']].title}: {each['path']}" for each in done]
    session.out.done({"clients": done}, "\n".join(lines) or "no client has it")


def _found(names: tuple[str, ...]) -> list[tuple[McpClient, Path]]:
    """The clients that are meant, and their configurations. Raises ``NotFound`` when there is none."""
    home, here = Path.home(), Path.cwd()
    wanted = [_KNOWN[name] for name in names] or [client for client in CLIENTS if client.name != "project"]
    found = [(client, path) for client in wanted if (path := client.path(home, here, os.environ, named=bool(names)))]
    if missing := set(names) - {client.name for client, _ in found}:
        raise NotFound(f"{', '.join(sorted(missing))}: not here", f"there are {', '.join(sorted(_KNOWN))}")
    if not found:
        raise NotFound("no client of MCP was found", "name one, or see what to write: keyhole mcp install --print")
    return found


def _program() -> str:
    """This program, by its path: clients are started with other paths than shells."""
    return str(Path(shutil.which(sys.argv[0]) or shutil.which("keyhole") or sys.argv[0]).absolute())


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What tells of this environment where the vault is and how it opens: clients pass little of theirs on."""
    found = {name: str(Path(environ[name]).absolute()) for name in _PATHS if environ.get(name)}
    found |= {name: environ[name] for name in _NAMES if environ.get(name)}
    kind, sign, place = environ.get("KEYHOLE_SEAL", "").partition(":")
    if kind and "@" not in place:
        found["KEYHOLE_SEAL"] = f"{kind}{sign}{Path(place).absolute() if kind in _OF_FILES else place}"
    return found


def _vault(session: Session) -> list[str]:
    """The options that name the vault, where that is not the local one. Raises ``InvalidRequest`` for a password."""
    location = session.vault or os.environ.get("KEYHOLE_VAULT", "") or os.environ.get("KEYHOLE_ADDR", "")
    if not location:
        return []
    if "@" in location:
        raise InvalidRequest(
            "the location of the vault has a credential in it, which no configuration should hold",
            "set KEYHOLE_VAULT where the client is started",
        )
    return ["--vault", location]
