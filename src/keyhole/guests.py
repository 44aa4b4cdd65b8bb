"""The proxy and what is spoken inside of its tunnels besides HTTP, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole import bounds
from keyhole.faces.proxy import ProxyServer
from keyhole.faces.sql import SqlFace
from keyhole.faces.sql.door import SqlListenerLimits
from keyhole.faces.ssh import SshFace
from keyhole.net.heap import keep_freed_memory

if TYPE_CHECKING:
    from keyhole.app import Keyhole
    from keyhole.net.http1.limits import ListenerLimits


def proxy_face(keyhole: Keyhole, limits: ListenerLimits, instance: str) -> ProxyServer:
    """What serves agents; ``instance`` is its name in ``Via``."""
    keep_freed_memory()
    face = ProxyServer(
        keyhole.broker,
        limits,
        instance=instance,
        databases=sql_face(keyhole),
        agents=ssh_face(keyhole),
        noted=bounds.shortage(keyhole.node),
    )
    keyhole.node.forgetting.append(face.regulars.forget)  # there are tokens in it
    return face


def sql_face(keyhole: Keyhole) -> SqlFace:
    """What serves clients of databases."""
    config = keyhole.config
    limits = SqlListenerLimits(config.sql_sessions, login=config.head_timeout, write=config.write_timeout)
    return SqlFace(keyhole.broker.sessions, keyhole.broker.note_refusal, limits)


def ssh_face(keyhole: Keyhole) -> SshFace:
    """What serves clients of ``SSH_AUTH_SOCK``."""
    return SshFace(keyhole.broker.ssh.open)
