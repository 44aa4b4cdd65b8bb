"""Base64 for URLs without padding (RFC 4648, sections 5 and 3.2), as tokens are written.

The last character holds bits that stand for nothing, and decoders skip what is no letter: without the check made here
several texts would stand for the same token, and what knows a token by its text (the scrubber, the audit, a list of
what was used) would miss its other spellings.
"""

from __future__ import annotations

import base64


def encode(data: bytes) -> str:
    """The one spelling of the data."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The data whose spelling this is. Raises ``ValueError`` for what ``encode`` does not write (section 3.5)."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ValueError("not base64url") from None
    if encode(data) != text:
        raise ValueError("not base64url in its only spelling")
    return data
