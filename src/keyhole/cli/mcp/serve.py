"""``mcp serve``: the tools of an agent, over stdio or HTTP."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.mcp.noun import mcp
from keyhole.cli.names import agents
from keyhole.config import is_loopback, split_address
from keyhole.core.errors import InvalidRequest, KeyholeError

if TYPE_CHECKING:
    from keyhole.faces.mcp.beside import Known
    from keyhole.faces.mcp.tools import Asker, Shelf


@mcp.command(
    "serve",
    examples="""
    keyhole mcp serve
    keyhole mcp serve --agent coder
    KEYHOLE_ADDR=https://keyhole.internal:8200 KEYHOLE_TOKEN=… keyhole mcp serve
    keyhole mcp serve --http 127.0.0.1:8230      # each client sends a token of its agent
    """,
)
@click.option("--agent", shell_complete=agents, default=DEFAULT_AGENT, show_default=True, help="Whose tools these are.")
@click.option("--http", "listen", metavar="HOST:PORT", default="", help="Serve HTTP on loopback instead of stdio.")
@click.option("--allow-reveal", is_flag=True, help="Offer values to who may read them. Each is recorded as a reveal.")
@click.option("--ttl", default="24h", show_default=True, help="How long its token may live at most.")
@pass_session
def serve(session: Session, /, *, agent: str, listen: str, allow_reveal: bool, ttl: str) -> None:
    """Serve the tools of an agent: find services, make calls, ask why not, ask for access.

    The client holds no credential: calls are made here, with the key attached on the way. With KEYHOLE_TOKEN the tools
    are those of that token's holder, else a token is made for the agent and ends with the server. Over HTTP each
    request brings the token of its agent; a server has the same endpoint at /mcp of its API.
    """
    from keyhole.faces.mcp.tools import Shelf  # noqa: PLC0415  # --help needs no tools

    if listen:
        if not session.where.token:
            session.client.read("sys/keyhole")  # whatever opens a local vault is asked for now
        asyncio.run(_serve_http(session, Shelf(reveal=allow_reveal), listen))
        return
    from keyhole.faces.mcp import server, stdio  # noqa: PLC0415  # the SDK is slow to import

    with _token(session, agent, ttl) as token:
        party = session.client.party(token)
        party.road()
        try:
            asyncio.run(stdio.serve(server.build(Shelf(reveal=allow_reveal), lambda _context: party)))
        finally:
            party.close()


@contextmanager
def _token(session: Session, agent: str, ttl: str) -> Iterator[str]:
    """The token of the session, or one of the agent that ends with the block."""
    if session.where.token:
        yield ""
        return
    session.client.read("sys/keyhole")  # opens a local vault with its road at once
    made: Mapping[str, Any] = session.client.write(f"agents/{agent}/token", {"ttl": ttl}).data
    try:
        yield str(made["token"])
    finally:
        try:
            session.client.write("auth/token/revoke-accessor", {"accessor": made["accessor"]})
        except KeyholeError as error:
            session.out.warn(f"the token could not be revoked, it ends at {made['expires_at']}: {error}")


async def _serve_http(session: Session, shelf: Shelf, listen: str) -> None:
    from keyhole.faces.mcp.beside import Known  # noqa: PLC0415  # as above

    known = Known(session.client.party)
    await serve_http(session, shelf, listen, known)


async def serve_http(session: Session, shelf: Any, listen: str, known: Known) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        session: says where it listens.
        shelf: of tools, or what makes a server.
        listen: ``HOST:PORT`` of loopback.
        known: askers by token.

    Raises:
        InvalidRequest: it cannot be listened there.
    """
    from keyhole.faces.api.server import ApiServer  # noqa: PLC0415  # as above
    from keyhole.faces.mcp.beside import PATH, Beside, nothing  # noqa: PLC0415

    host, port = split_address(listen, "http")
    if not is_loopback(host):
        raise InvalidRequest(
            "without TLS this endpoint listens on loopback only", f"a server has it at {PATH}, with TLS: keyhole server"
        )

    async def enter(token: str, _remote: str) -> Asker:
        asker = known.of(token)
        await asyncio.to_thread(asker.ask, "read", "auth/token/lookup-self")
        return asker

    hosts = frozenset({host, "127.0.0.1", "localhost", "::1"})
    tools = Beside(nothing, enter, hosts, session.note_refusal, shelf)
    server = ApiServer(tools)
    await tools.start()
    try:
        bound = await server.listen(host, port)
    except OSError as error:
        raise InvalidRequest(f"cannot listen on {listen}: {error.strerror}", "choose another --http") from None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    url = f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}{PATH}"
    session.out.result({"url": url}, f"tools at {url}; send Authorization: Bearer TOKEN (keyhole agent token NAME)")
    sys.stdout.flush()
    await stop.wait()
    await server.close()
    await tools.close()
