from __future__ import annotations

import asyncio
import sys

import pytest


@pytest.fixture(params=["asyncio", "uvloop"])
def either_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transports differ in how they close, pause and reset: what a client notices must not."""
    if request.param == "uvloop":
        if sys.platform == "win32":
            pytest.skip("uvloop is not available on Windows")
        import uvloop

        monkeypatch.setattr(asyncio, "run", uvloop.run)
