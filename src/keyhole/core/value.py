"""The only container of secret bytes."""

from __future__ import annotations

import hmac
from typing import NoReturn

from keyhole.core.errors import InvalidRequest


class Secret:
    """Bytes that must not be seen: masked in ``repr``, ``str``, format and JSON; never pickled or copied into text.

    ``reveal()`` is the only way out, so that ``grep -rn 'reveal('`` lists every place where a value leaves. CPython
    cannot wipe memory; the object only keeps a value from slipping into logs, errors and messages.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | str) -> None:
        self._value = _encode(value) if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves. Every caller is pinned by a test."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, _spec: str) -> str:
        return "***"

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._value, other._value) if isinstance(other, Secret) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a hash in a dict would compare in variable time

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never serialised")


def _encode(text: str) -> bytes:
    """UTF-8; a lone surrogate is refused without Python's own error, which carries the whole text."""
    if text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text):
        return text.encode()
    raise InvalidRequest("a value is not text: it has half of a surrogate pair", "send other bytes in base64")
