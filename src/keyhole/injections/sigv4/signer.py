"""The key of one day, region and service, and what is signed with it.

The credential scope and the chain of keys are those of "Signature Version 4 signing process", AWS General Reference.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs texts.

    Attributes:
        key: for the scope.
        timestamp: ``YYYYMMDDTHHMMSSZ``.
        scope: ``YYYYMMDD/region/service/aws4_request``.
    """

    key: bytes = field(repr=False)
    timestamp: str
    scope: str

    @classmethod
    def derive(cls, secret: bytes, timestamp: str, region: str, service: str) -> Signer:
        """The signer for a time, made from a secret access key."""
        key = b"AWS4" + secret
        parts = (timestamp[:8], region, service, "aws4_request")
        for part in parts:
            key = hmac.digest(key, part.encode(), "sha256")
        return cls(key, timestamp, "/".join(parts))

    def sign(self, *parts: str, of: str = "") -> str:
        """The signature, in hexadecimal digits.

        Args:
            parts: lines after the algorithm, the time and the scope.
            of: what is signed, where it is not a request: ``-PAYLOAD`` or ``-TRAILER``.
        """
        text = "\n".join([ALGORITHM + of, self.timestamp, self.scope, *parts])
        return hmac.digest(self.key, text.encode(), "sha256").hex()
