"""One client of the agent, from its first byte to its last."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from keyhole.core.errors import fault_place
from keyhole.net import ssh_agent
from keyhole.net.http1.wire import NEVER, Wire

_log = logging.getLogger("keyhole.ssh")
_IDLE = 300.0  # seconds between two messages: people type codes and touch keys meanwhile
_MOST = 256  # messages of one connection


class Agent(Protocol):
    """What answers."""

    async def answer(self, kind: int, content: bytes) -> bytes:
        """To one message."""

    def close(self) -> None:
        """The client has gone."""


class SshFace:
    """Serves clients on connections that others accept.

    Args:
        make: the agent for a token and the client's address.
    """

    def __init__(self, make: Callable[[bytes, str], Agent]) -> None:
        self._make = make

    async def serve(self, wire: Wire, credential: bytes, remote: str) -> None:
        """Serve one client to its end. Raises ``OSError`` when its connection breaks."""
        agent = self._make(credential, remote)
        try:
            await _answer(wire, agent)
        except (ssh_agent.WrongMessage, TimeoutError):
            wire.abort()
        except OSError:
            raise
        except Exception as fault:  # noqa: BLE001 - a fault of ours ends this connection only, and is logged
            _log.error("internal error: %s", fault_place(fault))
            wire.abort()
        finally:
            agent.close()


async def _answer(wire: Wire, agent: Agent) -> None:
    for _ in range(_MOST):
        message = await _next(wire)
        if message is None:
            return
        wire.write(await agent.answer(*message))
        wire.flush()


async def _next(wire: Wire) -> tuple[int, bytes] | None:
    wire.read_deadline = wire.loop.time() + _IDLE
    while True:
        found = ssh_agent.take(wire.buffer)
        if found is not None:
            wire.read_deadline = NEVER
            kind, content, wire.buffer = found
            return kind, content
        if wire.eof:
            return None
        await wire.wait()
