"""The settings, as the limits of each part that has some."""

from __future__ import annotations

from keyhole.broker.live import StreamLimits
from keyhole.broker.sql.limits import SqlLimits
from keyhole.config import Config
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2.limits import Http2Limits
from keyhole.net.websocket import FrameLimits


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


def http2(config: Config) -> Http2Limits:
    """Of connections of HTTP/2, of either side."""
    return Http2Limits(
        streams=config.http2_streams,
        header_list_bytes=config.http2_header_bytes,
        header_block_bytes=config.http2_header_bytes,
        ping=config.http2_ping,
        ping_timeout=config.http2_ping_timeout,
    )


def listener(config: Config, connections: int) -> ListenerLimits:
    """Of a listener with so many connections."""
    return ListenerLimits(
        connections=connections,
        head_timeout=config.head_timeout,
        idle_timeout=config.idle_timeout,
        tunnel_timeout=config.tunnel_timeout,
        body_timeout=config.body_timeout,
        body_rate=config.body_rate,
        rate_window=config.rate_window,
        write_timeout=config.write_timeout,
        http2=http2(config),
    )
