"""The way of a server's program to the broker: a token of its own, as ``keyhole run`` gives one to a command."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from keyhole.cli.granted import FromThread, granted
from keyhole.core.errors import KeyholeError
from keyhole.core.tool_server import ToolServer
from keyhole.faces.run.environment import child_environment, has_java
from keyhole.faces.run.plan import RunPlan
from keyhole.faces.run.port import SessionPort, session_port
from keyhole.faces.run.trust import TrustFiles, trust_files

if TYPE_CHECKING:
    from keyhole.cli.base import Session

_LIVES = 24 * 3600
_USED = 0.9  # part of its token's life after which a program is started again, with another


class Through:
    """What one program is given; see ``faces.mcp.gateway.reach.Through``."""

    def __init__(self, plan: RunPlan, files: TrustFiles, port: SessionPort, token: str, until: float) -> None:
        self._plan = plan
        self._files = files
        self._port = port
        self.token = token
        self.until = until

    def __repr__(self) -> str:
        return "Through()"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """What leads it there, over an environment."""
        del base  # the plan has it
        found = child_environment(self._plan, self._files, sandboxed=True, ports=[self._port.address])
        return {name.decode(): value.decode() for name, value in found.items()}

    def started(self, process: int) -> None:
        """The port serves what descends from this process."""
        self._port.root = process


class Throughs:
    """Gives programs their ways.

    Args:
        session: of the command.
        base: environment that every program has.
        tell: told in words when somebody else tries to use one.
    """

    def __init__(self, session: Session, base: Mapping[str, str], tell: Callable[[str], None]) -> None:
        self._client = session.client
        self._base = base
        self._tell = tell
        self._lock = threading.Lock()

    @asynccontextmanager
    async def __call__(self, server: ToolServer) -> AsyncIterator[Through]:
        """For as long as a program runs. Its uses are recorded with the server's name as the tool."""
        began = time.monotonic()
        made, plan = await asyncio.to_thread(self._made, server)
        try:
            with ExitStack() as stack:
                files = await asyncio.to_thread(
                    stack.enter_context,
                    trust_files(plan.ca_pem, plan.base_env, java=has_java(plan.base_env), others=plan.files),
                )
                async with session_port(SessionPort(plan.proxy_url, self._tell)) as port:
                    yield Through(plan, files, port, str(made["token"]), began + _LIVES * _USED)
        finally:
            ending = asyncio.ensure_future(asyncio.to_thread(self._end, str(made["accessor"])))
            await asyncio.shield(ending)

    def _made(self, server: ToolServer) -> tuple[Mapping[str, Any], RunPlan]:
        with self._lock, contextlib.closing(self._client.party()) as party:
            gets = granted(FromThread(party), server.agent)
            wanted = {"scope": "proxy", "ttl": f"{_LIVES}s", "placeholders": True, "tool": server.name}
            made = party.ask("update", f"agents/{server.agent}/token", wanted).data
            try:
                gets = gets.for_session(made.get("placeholders") or {})
                road = self._client.road(str(made["token"]))
            except BaseException:
                self._end(str(made["accessor"]))
                raise
        argv = (server.command, *server.args)
        return made, RunPlan(argv, road.url, road.ca.encode(), gets.placeholders, base_env=dict(self._base))

    def _end(self, accessor: str) -> None:
        with contextlib.suppress(KeyholeError), contextlib.closing(self._client.party()) as party:
            party.ask("update", "auth/token/revoke-accessor", {"accessor": accessor})
