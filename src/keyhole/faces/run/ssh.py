"""SSH for a command: a socket whose keys are the broker's, and a configuration that leads through it.

The socket serves processes of the command only. Each connection becomes a tunnel to the broker's end, with the
command's token; there is no key on this side.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from keyhole.faces.run.plan import SshHost
from keyhole.faces.run.port import SessionPort, descends, serving

_SECONDS = 30.0  # to the answer to CONNECT
_PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
SOCKET, CONFIGURATION = "agent.sock", "ssh_config"
_HOST = """\
Host {names}
    HostName {host}
    Port {port}
{user}    ProxyCommand {reach} %h %p
    UserKnownHostsFile "{known}"
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    IdentityAgent "{socket}"
    IdentityFile none
    PreferredAuthentications publickey
    ForwardAgent no
"""


class AgentSocket(SessionPort):
    """The listener of ``SSH_AUTH_SOCK``.

    Args:
        proxy_url: the broker's proxy, of plain HTTP, with the token.
        on_message: told once when somebody else tried to connect.
        first: a port of the same command, which knows its launcher.
        path: where it is.
    """

    what = "agent of SSH"
    refusal = b""

    def __init__(self, proxy_url: str, on_message: Callable[[str], None], first: SessionPort, path: Path) -> None:
        super().__init__(proxy_url, on_message)
        self._first = first
        self.path = path

    async def _asked_by(self, writer: asyncio.StreamWriter) -> bool:
        peer = writer.get_extra_info("socket")
        pid = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
        root = self._first.root
        return bool(root) and await asyncio.to_thread(descends, root, pid)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from keyhole.core.ssh import AGENT  # noqa: PLC0415  # few commands have it, and every run waits for its imports

        there = str(AGENT).encode()
        back, forth = await asyncio.open_connection(*self._there)
        try:
            forth.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (there, there) + self._credential + b"\r\n")
            async with asyncio.timeout(_SECONDS):
                answer = await back.readuntil(b"\r\n\r\n")
            if answer.startswith(b"HTTP/1.1 200 "):
                await self.carry(reader, writer, back, forth)
        finally:
            forth.close()


@asynccontextmanager
async def agent_socket(agent: AgentSocket) -> AsyncIterator[AgentSocket]:
    """Listen, and close it with all its connections at the end."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(agent.path))  # in a directory that is this user's alone
    async with serving(agent.serve, sock=sock, path=True):
        yield agent


def write_configuration(folder: Path, hosts: Sequence[SshHost]) -> None:
    """The configuration for ``ssh -F``, with a file of known hosts beside it."""
    agent = folder / SOCKET
    known = folder / "known_hosts"
    known.write_text("".join(f"{line}\n" for host in hosts for line in host.known_hosts), encoding="ascii")
    reach = f"{shlex.quote(sys.executable)} -I -m keyhole.faces.run.reach"
    blocks = []
    for host in hosts:
        user = f"    User {host.users[0]}\n" if len(host.users) == 1 else ""
        names = " ".join(dict.fromkeys((host.service, host.host)))
        blocks.append(
            _HOST.format(names=names, host=host.host, port=host.port, user=user, reach=reach, known=known, socket=agent)
        )
    (folder / CONFIGURATION).write_text("\n".join(blocks), encoding="utf-8")


def variables(folder: Path) -> dict[str, str]:
    """What leads ``git`` there, and ``ssh -F "$KEYHOLE_SSH_CONFIG"``."""
    configuration = folder / CONFIGURATION
    return {
        "SSH_AUTH_SOCK": str(folder / SOCKET),
        "KEYHOLE_SSH_CONFIG": str(configuration),
        "GIT_SSH_COMMAND": f"ssh -F {shlex.quote(str(configuration))}",
        "GIT_SSH_VARIANT": "ssh",
    }
