"""A fault of ours is logged where it happened, and its text, which may quote a value, is not."""

import asyncio
import logging

import pytest

from keyhole.core.errors import InternalError
from keyhole.testing import open_vault

CANARY = "sk_live_canary_in_an_exception"


def test_a_fault_is_logged_by_its_place_and_not_by_its_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ValueError(CANARY)

    async def run() -> None:
        async with open_vault() as opened:
            monkeypatch.setattr(opened.vault, "_dispatch", broken)
            with caplog.at_level(logging.DEBUG), pytest.raises(InternalError) as refused:
                await opened.ask("read", "secret/data/x")
            assert CANARY not in str(refused.value)

    asyncio.run(run())
    assert "ValueError at broken" in caplog.text
    assert CANARY not in caplog.text
