"""Keys that their owners have published on purpose, known by digest: finding them helps nobody.

They are those of examples in documentation and of tests in the repositories of Firebase's SDKs, and the public search
key of a documentation index. A key that merely got out is not among them.
"""

from __future__ import annotations

import hashlib

_LENGTH = 12
_DIGESTS = frozenset(
    bytes.fromhex(text)
    for text in (
        "0b476bdf9acf2123d547b5ae",
        "2037abcaffb2b77785da716c",
        "27a9a42931dff7eb2f8434e2",
        "2f21fd9c81678e396751af8b",
        "37f8f09bdf12c2f2eae4ead7",
        "3a8b61d0f636b007840c0d40",
        "3f370c9dd8225c63b5c77de1",
        "49f777db995e8260da7ca9ff",
        "4c98242dcadc8b29005c6b4a",
        "8731261cb72d86267a32a532",
        "a19f89ab3555eac10c40741f",
        "a6c814bc555ae62c7bd8b58e",
        "dc0fcf046c61640cbd1e8b99",
        "e4a5542bb7fd7b67e943c71a",
        "ea9bb1082cf95663f5faca23",
        "eb540d2b6ee2a0a47c5779bc",
    )
)


def is_published(value: bytes) -> bool:
    """Is it one of them?"""
    return hashlib.sha256(value).digest()[:_LENGTH] in _DIGESTS
