"""What a peer of one HTTP/2 connection may make us hold and do (RFC 9113 section 10.5).

Sizes of single values, the number of header fields and times are those of HTTP/1: ``WireLimits``, ``ListenerLimits``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """Bounds on one connection. Whoever exceeds one loses the stream where that is safe, else the connection.

    Attributes:
        streams: requests at once (SETTINGS_MAX_CONCURRENT_STREAMS). One that was reset counts until its work has ended.
        requests: requests of a connection in its life; then it is told to go away.
        header_list_bytes: a decoded header section, with 32 bytes for each field (SETTINGS_MAX_HEADER_LIST_SIZE).
        header_block_bytes: the same as it arrives, compressed.
        continuations: CONTINUATION frames of one header section.
        table_bytes: the dynamic table that a peer may fill (SETTINGS_HEADER_TABLE_SIZE).
        frame_bytes: payload of one frame (SETTINGS_MAX_FRAME_SIZE).
        stream_window: bytes of a body that arrive without being read (SETTINGS_INITIAL_WINDOW_SIZE).
        connection_window: the same for all bodies together.
        resets: streams at once that end before their time through the peer's doing: by its RST_STREAM, by ours for what
            it did, or refused because the request was malformed.
        resets_rate: such streams a second, on average.
        noise: frames at once that carry nothing: PING, SETTINGS, PRIORITY, unknown types, empty DATA, small window
            updates, and what is sent on closed streams.
        noise_rate: such frames a second, on average.
        noise_for_data: further ones for each frame with payload, in either direction: clients measure as they go.
        settings_cost: for how many such frames one SETTINGS counts; it touches every open stream.
        window_step: bytes; a smaller window update is noise.
        ping: seconds of silence after which an upstream that owes an answer is asked for a sign of life; 0 for never.
            Servers of gRPC take one in 5 minutes for granted, and end the connection for more.
        ping_timeout: seconds that it has for that sign.
    """

    streams: int = 100
    requests: int = 100_000
    header_list_bytes: int = 64 * 1024
    header_block_bytes: int = 64 * 1024
    continuations: int = 16
    table_bytes: int = 4096
    frame_bytes: int = 16 * 1024
    stream_window: int = 128 * 1024
    connection_window: int = 1024 * 1024
    resets: int = 200
    resets_rate: float = 20.0
    noise: int = 1000
    noise_rate: float = 50.0
    noise_for_data: int = 4
    settings_cost: int = 20
    window_step: int = 1024
    ping: float = 300.0
    ping_timeout: float = 20.0
