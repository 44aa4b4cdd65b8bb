"""Shamir's secret sharing of a 32-byte key over GF(2**8) (Shamir, "How to share a secret", CACM 22, 1979).

Every byte of the key is the constant term of a polynomial of its own, whose other coefficients are random; share number
``x`` holds the values of all of them at ``x``. Fewer shares than the threshold say nothing about the key.

Safe here: the field is that of AES (FIPS 197, section 4), computed on all 32 bytes of a value at once as one integer,
so that no table is indexed by a secret and no branch depends on one; share numbers are public. The size of an integer
in memory still depends on its leading zeros; CPython has nothing better.

Shares of Shamir's scheme fit together whatever they are, and a wrong one gives a wrong key without a word. So each
carries the threshold and the id of its set, and the id is a MAC under the key: what is put together is proved.

A share, 54 bytes:

    u8  format = 1
    16  id of the set: HMAC-SHA256 under the key of "keyhole shares 1" and the threshold, cut off
    u8  threshold
    32  values of the polynomials
    u8  number of the share, 1 to 255
    3   SHA-256 of all bytes above, cut off: finds what was mistyped
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.aead import KEY_SIZE

FORMAT = 1
MAX_SHARES = 255
SHARE_SIZE = 54
_ID_SIZE = 16
_SUM_SIZE = 3
_POLYNOMIAL = 0x1B  # x**8 = x**4 + x**3 + x + 1
_ONES = int.from_bytes(b"\x01" * KEY_SIZE, "big")
_HIGH_BITS = _ONES << 7
_ALL = (1 << 8 * KEY_SIZE) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """One share.

    Attributes:
        set_id: which shares belong together.
        threshold: how many of them give the key.
        number: the place where the polynomials were evaluated; never 0, where the key is.
    """

    set_id: bytes
    threshold: int
    number: int
    _values: int = field(repr=False)

    def encode(self) -> bytes:
        """The share as its holder keeps it."""
        values = self._values.to_bytes(KEY_SIZE, "big")
        head = bytes((FORMAT,)) + self.set_id + bytes((self.threshold,)) + values + bytes((self.number,))
        return head + _checksum(head)

    def same_as(self, other: Share) -> bool:
        """Is it the same share?"""
        return hmac.compare_digest(self.encode(), other.encode())

    @classmethod
    def decode(cls, encoded: bytes) -> Share:
        """The share that ``encode`` wrote.

        Raises:
            InvalidRequest: these bytes are no share, or were mistyped.
        """
        head, checksum = encoded[:-_SUM_SIZE], encoded[-_SUM_SIZE:]
        sound = len(encoded) == SHARE_SIZE and head[0] == FORMAT and hmac.compare_digest(checksum, _checksum(head))
        if not sound or not head[-1] or not head[1 + _ID_SIZE]:
            raise InvalidRequest("this is not a share, or a part of it is mistyped", "copy the whole share again")
        start = 2 + _ID_SIZE
        return cls(
            head[1 : 1 + _ID_SIZE], head[1 + _ID_SIZE], head[-1], int.from_bytes(head[start : start + KEY_SIZE], "big")
        )


def check_quorum(shares: int, threshold: int) -> None:
    """Refuse numbers of shares that make no sense.

    Raises:
        InvalidRequest: not 1 <= threshold <= shares <= 255, or one share of several would be enough.
    """
    if not 1 <= shares <= MAX_SHARES:
        raise InvalidRequest(f"there can be 1 to {MAX_SHARES} shares", "choose for example 5 shares, 3 of which open")
    if not 1 <= threshold <= shares:
        raise InvalidRequest("the threshold must be between 1 and the number of shares", "choose for example 3 of 5")
    if threshold == 1 and shares > 1:
        raise InvalidRequest("with several shares the threshold must be at least 2", "or make one share only")


def split(key: bytes, shares: int, threshold: int) -> list[Share]:
    """Shares of a key of 32 bytes, each ``threshold`` of which give it back.

    Raises:
        InvalidRequest: the key has another size, or see ``check_quorum``.
    """
    check_quorum(shares, threshold)
    if len(key) != KEY_SIZE:
        raise InvalidRequest(f"a key has {KEY_SIZE} bytes")
    random = [int.from_bytes(os.urandom(KEY_SIZE), "big") for _ in range(threshold - 1)]
    coefficients = [*random, int.from_bytes(key, "big")]  # the highest power first
    set_id = _set_id(key, threshold)
    return [Share(set_id, threshold, number, _evaluate(coefficients, number)) for number in range(1, shares + 1)]


def combine(shares: Sequence[Share]) -> bytes:
    """The key of ``threshold`` or more shares.

    Raises:
        InvalidRequest: too few, one stands twice, or they are of several sets.
        IntegrityError: they give no key of their set: one of them is forged.
    """
    first = shares[0] if shares else None
    if first is None or len(shares) < first.threshold:
        raise InvalidRequest("there are too few shares", "give as many as the threshold says")
    if any((share.set_id, share.threshold) != (first.set_id, first.threshold) for share in shares):
        raise InvalidRequest("the shares are not of one set", "give shares that were made together")
    numbers = [share.number for share in shares]
    if len(set(numbers)) != len(numbers) or 0 in numbers:
        raise InvalidRequest("a share stands twice", "give each share once")
    total = 0
    for share in shares:
        total ^= scale(share._values, _weight(share.number, numbers))  # noqa: SLF001  # a share's own module
    key = total.to_bytes(KEY_SIZE, "big")
    if not hmac.compare_digest(_set_id(key, first.threshold), first.set_id):
        raise IntegrityError("the shares do not give the key of their set", "one of them is wrong: use others")
    return key


def scale(values: int, factor: int) -> int:
    """The product of each of 32 bytes with a public factor from 0 to 255."""
    product = 0
    for bit in range(8):
        product ^= values & (_ALL * (factor >> bit & 1))
        high = values & _HIGH_BITS
        values = ((values ^ high) << 1) ^ ((high >> 7) * _POLYNOMIAL)
    return product


def inverse(number: int) -> int:
    """The multiplicative inverse of a public byte that is not 0: its power 254."""
    power, result = number, 1
    for _ in range(7):
        power = scale(power, power)
        result = scale(result, power)
    return result


def _evaluate(coefficients: Sequence[int], number: int) -> int:
    value = 0
    for coefficient in coefficients:
        value = scale(value, number) ^ coefficient
    return value


def _weight(number: int, numbers: Sequence[int]) -> int:
    """What a share counts for at 0 (Lagrange's interpolation)."""
    above, below = 1, 1
    for other in numbers:
        if other != number:
            above = scale(above, other)
            below = scale(below, other ^ number)
    return scale(above, inverse(below))


def _set_id(key: bytes, threshold: int) -> bytes:
    return hmac.digest(key, b"keyhole shares 1" + bytes((threshold,)), "sha256")[:_ID_SIZE]


def _checksum(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()[:_SUM_SIZE]
