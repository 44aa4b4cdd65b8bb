"""AWS's signatures: the key of one day, region and service, and what is signed with it.

The credential scope, the chain of keys and the canonical request are those of "Signature Version 4 signing process",
AWS General Reference.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
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


def authorization_of_post(
    headers: Mapping[str, str], target: str, body: bytes, *, key_id: str, secret: bytes, region: str, service: str
) -> str:
    """The ``Authorization`` of a POST.

    Args:
        headers: all of them are signed; by names in lower case, with ``host`` and ``x-amz-date``.
        target: path without anything that AWS would encode once more, and no query.
        body: the whole of it.
        key_id: of the access key.
        secret: of the access key.
        region: that is asked.
        service: that is asked.
    """
    signer = Signer.derive(secret, headers["x-amz-date"], region, service)
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join(["POST", target, "", lines, names, hashlib.sha256(body).hexdigest()])
    signature = signer.sign(hashlib.sha256(request.encode()).hexdigest())
    return f"{ALGORITHM} Credential={key_id}/{signer.scope}, SignedHeaders={names}, Signature={signature}"
