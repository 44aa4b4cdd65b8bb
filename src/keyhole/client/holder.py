"""Whose a token is, for who only has to tell one holder from another."""

from __future__ import annotations

import hmac
import secrets

_KEY = secrets.token_bytes(32)  # of this process


def holder_of(token: str) -> bytes:
    """The same for the same token while this process lives, and nothing that could be tried tokens on elsewhere."""
    return hmac.digest(_KEY, token.encode(), "sha256") if token else secrets.token_bytes(32)
