"""``mcp gateway``: one endpoint in front of the servers of tools that the vault knows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.mcp.noun import mcp
from keyhole.cli.mcp.serve import serve_http
from keyhole.cli.names import agents
from keyhole.core.errors import KeyholeError, NotFound

if TYPE_CHECKING:
    from keyhole.faces.mcp.gateway.reach import Ways

_LONGEST = 8 * 1024 * 1024  # bytes of an answer over HTTP


@mcp.command(
    "gateway",
    examples="""
    keyhole mcp gateway --agent coder
    keyhole mcp gateway --agent coder --server github --server jira
    keyhole mcp gateway --http 127.0.0.1:8231      # each client sends a token of its agent
    """,
)
@click.option("--agent", shell_complete=agents, default=DEFAULT_AGENT, show_default=True, help="Who calls the tools.")
@click.option("--http", "listen", metavar="HOST:PORT", default="", help="Serve HTTP on loopback instead of stdio.")
@click.option("--server", "servers", multiple=True, metavar="NAME", help="These servers only; may be repeated.")
@click.option("--ttl", default="24h", show_default=True, help="How long the agent's token may live at most.")
@pass_session
def gateway(session: Session, /, *, agent: str, listen: str, servers: tuple[str, ...], ttl: str) -> None:
    """Stand in front of MCP servers, which get the keys that the agent does not.

    Servers are added with keyhole mcp server add, their tools approved with keyhole mcp server approve, and granted to
    agents by policy: path "tools/SERVER/*" { capabilities = ["use"] }. Whoever runs the gateway reads the secrets of
    the servers, with KEYHOLE_TOKEN or as the owner of a local vault; each call is decided for the agent, and recorded.
    """
    from keyhole.faces.mcp import stdio  # noqa: PLC0415  # the SDK is slow to import
    from keyhole.faces.mcp.beside import Known  # noqa: PLC0415
    from keyhole.faces.mcp.gateway import front  # noqa: PLC0415
    from keyhole.faces.mcp.gateway.gateway import Gateway  # noqa: PLC0415

    quiet()
    session.client.read("sys/keyhole")  # whatever opens a local vault is asked for now
    _require_servers(session, servers)
    if not listen and sys.stdin.isatty():
        session.out.say("waits for a client of MCP on stdin; clients start it: keyhole mcp install --gateway")
    session.pin_code()
    own = session.client.party()
    stands = Gateway(own, ways(session), frozenset(servers))

    async def over_stdio(token: str) -> None:
        party = session.client.party(token)
        try:
            await stdio.serve(front.build(stands, lambda _context: party))
        finally:
            await stands.close()
            party.close()

    async def over_http() -> None:
        try:
            known = Known(session.client.party)
            await serve_http(session, lambda agent_of: front.build(stands, agent_of), listen, known)
        finally:
            await stands.close()

    try:
        if listen:
            asyncio.run(over_http())
            return
        with _token(session, agent, ttl) as token:
            asyncio.run(over_stdio(token))
    finally:
        own.close()


def _require_servers(session: Session, wanted: tuple[str, ...]) -> None:
    """Raises ``NotFound`` for a server that is named and not there; says so where there is none at all."""
    there = session.names("tools/servers")
    if missing := [name for name in wanted if name not in there]:
        raise NotFound(f"there is no server {missing[0]!r}", "keyhole mcp server list")
    if not there:
        session.out.warn("there are no servers yet: keyhole mcp server add NAME …")


def quiet() -> None:
    """What the SDK logs of a server's messages may have a credential in it, so it is not written anywhere."""
    log = logging.getLogger("mcp")
    log.addHandler(logging.NullHandler())
    log.propagate = False


def ways(session: Session | None = None) -> Ways:
    """How servers are reached from here; without a session, none of them through the broker."""
    from keyhole import app  # noqa: PLC0415  # --help needs none of it
    from keyhole.config import home, load  # noqa: PLC0415
    from keyhole.faces.mcp.gateway.reach import Ways  # noqa: PLC0415
    from keyhole.net.ask import AskLimits  # noqa: PLC0415

    config = load()
    found = Ways(lambda seconds: app.asker(config, AskLimits(seconds, _LONGEST)), hidden=[home()])
    if session is None:
        return found
    from keyhole.cli.mcp.through import Throughs  # noqa: PLC0415
    from keyhole.cli.run import hidden_paths  # noqa: PLC0415
    from keyhole.faces.mcp.gateway.child import environment  # noqa: PLC0415

    def tell(text: str) -> None:
        session.out.say(f"keyhole: {text}")

    with ThreadPoolExecutor(1) as thread:  # it looks into the store with a loop of its own, and there may be one here
        hidden = thread.submit(hidden_paths, session).result()
    return replace(found, broker=Throughs(session, environment({}, os.environ), tell), hidden=hidden, tell=tell)


@contextmanager
def _token(session: Session, agent: str, ttl: str) -> Iterator[str]:
    """A token of the agent that ends with the block."""
    made: Mapping[str, Any] = session.client.write(f"agents/{agent}/token", {"ttl": ttl}).data
    try:
        yield str(made["token"])
    finally:
        with contextlib.suppress(KeyholeError):  # it ends by itself as well
            session.client.write("auth/token/revoke-accessor", {"accessor": made["accessor"]})
