"""What an operator says of HTTP/2, and what becomes of it."""

from __future__ import annotations

import pytest

from keyhole import bounds
from keyhole.config import Config, load
from keyhole.core.errors import InvalidRequest


def test_settings_reach_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYHOLE_HTTP2_STREAMS", "7")
    monkeypatch.setenv("KEYHOLE_HTTP2_PING", "10m")
    limits = bounds.http2(load(flags={"http2_header_bytes": 8192}))
    assert (limits.streams, limits.header_list_bytes, limits.header_block_bytes) == (7, 8192, 8192)
    assert (limits.ping, limits.ping_timeout) == (600.0, 20.0)
    assert bounds.listener(Config(http2_streams=7), 10).http2.streams == 7


@pytest.mark.parametrize("setting", [{"http2_streams": 0}, {"http2_header_bytes": 1 << 20}, {"http2_ping_timeout": 0}])
def test_settings_with_which_nothing_would_work_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(setting))):
        Config(**setting).checked()
