"""The settings, as the limits of each part that has some."""

from __future__ import annotations

from collections.abc import Callable

from keyhole.broker.live import StreamLimits
from keyhole.broker.sql.limits import SqlLimits
from keyhole.broker.upstream import UpstreamLimits, UpstreamTimeouts
from keyhole.config import Config
from keyhole.core.shares import ShareLimits
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2.limits import Http2Limits
from keyhole.net.websocket import FrameLimits
from keyhole.vault.node import Node


def streams(config: Config) -> StreamLimits:
    """Of streams that go on after the head of an answer."""
    frames = FrameLimits(frame=config.websocket_frame, message=config.websocket_message)
    return StreamLimits(
        frames,
        idle=config.websocket_idle_timeout,
        tunnel_idle=config.tunnel_idle_timeout,
        write=config.write_timeout,
    )


def sql(config: Config) -> SqlLimits:
    """Of sessions with databases."""
    return SqlLimits(
        sessions=config.sql_sessions,
        connect=config.connect_timeout,
        idle=config.sql_idle_timeout,
        longest=config.sql_session_timeout,
        write=config.write_timeout,
    )


def upstreams(config: Config) -> UpstreamLimits:
    """Of connections to upstreams."""
    timeouts = UpstreamTimeouts(
        connect=config.connect_timeout,
        answer=config.answer_timeout,
        body=config.stream_timeout,
        write=config.write_timeout,
        rate=config.stream_rate,
        window=config.rate_window,
    )
    return UpstreamLimits(http2=http2(config), timeouts=timeouts)


def http2(config: Config) -> Http2Limits:
    """Of connections of HTTP/2, of either side."""
    return Http2Limits(
        streams=config.http2_streams,
        header_list_bytes=config.http2_header_bytes,
        header_block_bytes=config.http2_header_bytes,
        ping=config.http2_ping,
        ping_timeout=config.http2_ping_timeout,
    )


def shares(config: Config) -> ShareLimits:
    """Of what one org or agent may take."""
    return ShareLimits(
        org=config.org_share,
        agent=config.agent_share,
        orgs=config.org_shares,
        calls=config.calls,
        held=config.held_bytes,
        certificates=config.certificates,
        starting=config.starting,
        org_rate=config.org_rate,
        agent_rate=config.agent_rate,
    )


def listener(config: Config, connections: int) -> ListenerLimits:
    """Of a listener with so many connections."""
    return ListenerLimits(
        connections=connections,
        strangers=config.strangers,
        head_timeout=config.head_timeout,
        idle_timeout=config.idle_timeout,
        tunnel_timeout=config.tunnel_timeout,
        body_timeout=config.body_timeout,
        body_rate=config.body_rate,
        rate_window=config.rate_window,
        write_timeout=config.write_timeout,
        http2=http2(config),
    )


def shortage(node: Node) -> Callable[[str], None]:
    """What a listener tells that it had no room, and for what."""

    def note(what: str) -> None:
        if node.vault is not None:
            node.vault.shares.note(what)

    return note
