"""Signed documents: JSON that people can review, with Ed25519 signatures over one canonical form of its content.

The signed bytes are a line with domain, kind and ``v1``, and the content as JSON with sorted keys, without spaces, in
UTF-8. Contents have texts, whole numbers, booleans, lists and objects only, so that this form is the only one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto.signing import SigningKey, verify
from keyhole.repo.unmerged import next_step

_DOMAIN = "keyhole repo "
_MAX_SIGNATURES = 64
_BOUNDS = JsonBounds(depth=8, string=64 * 1024)


@dataclass(frozen=True, slots=True)
class Signed:
    """A document as it was read, and not verified yet.

    Attributes:
        kind: ``members`` or ``secret``.
        content: what it says.
        signatures: name of who signed to the signature.
        where: its file, for messages.
    """

    kind: str
    content: Mapping[str, Any]
    signatures: Mapping[str, bytes]
    where: str

    @property
    def digest(self) -> str:
        """SHA-256 of the signed bytes, in hexadecimal."""
        return hashlib.sha256(_bytes(self.kind, self.content)).hexdigest()

    def is_by(self, name: str, public: bytes) -> bool:
        """Whether it has a signature of this name that verifies with this Ed25519 key."""
        signature = self.signatures.get(name)
        if signature is None or len(public) != 32:
            return False
        try:
            verify(public, _bytes(self.kind, self.content), signature)
        except IntegrityError:
            return False
        return True


def write(kind: str, content: Mapping[str, Any], signers: Sequence[tuple[str, SigningKey]]) -> bytes:
    """The bytes of a document that these sign."""
    data = _bytes(kind, content)
    signatures = {name: base64.b64encode(key.sign(data)).decode() for name, key in signers}
    document = {"content": content, "signatures": signatures}
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def read(kind: str, data: bytes, where: str) -> Signed:
    """The document of these bytes. Raises ``IntegrityError`` that names the file."""
    try:
        document = parse_object(data, _BOUNDS)
        content, signatures = document["content"], document["signatures"]
        found = {str(name): base64.b64decode(text, validate=True) for name, text in signatures.items()}
        if isinstance(content, dict) and len(found) <= _MAX_SIGNATURES:
            return Signed(kind, content, found, where)
    except (InvalidRequest, KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        pass
    raise IntegrityError(f"{where} is not a signed document", next_step(data))


def _bytes(kind: str, content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{_DOMAIN}{kind} v1\n{text}".encode()
