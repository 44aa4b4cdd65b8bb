"""SCRAM-SHA-256 as PostgreSQL speaks it (RFC 5802, RFC 7677), with the channel binding tls-server-end-point (RFC 5929).

The client's proof is bound to the certificate that the server showed, so that it is of no use to anybody between.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata

from keyhole.core.errors import UpstreamUnreachable

PLAIN = b"SCRAM-SHA-256"
BOUND = b"SCRAM-SHA-256-PLUS"
MAX_ITERATIONS = 1_000_000
"""A server can make its clients compute: this is about half a second, and two hundred times what PostgreSQL asks."""
MIN_ITERATIONS = 4096  # RFC 7677, section 4
_FIRST = re.compile(rb"r=([!-+\--~]{1,256}),s=([A-Za-z0-9+/=]{4,1024}),i=([1-9][0-9]{0,9})")
_FINAL = re.compile(rb"v=([A-Za-z0-9+/]{43}=)")
_HINT = "look at the server's log: its answers are not those of PostgreSQL"


class Scram:
    """One exchange: ``first``, then ``final`` with the server's first message, then ``verify`` with its last.

    Args:
        password: of the user.
        nonce: 18 random bytes or more, used once.
        end_point: hash of the server's certificate, for the bound mechanism; empty for the plain one.
        offered: the server offers the bound mechanism. A client that could have bound and was not offered it says so,
            and the server notices when somebody took the offer away.
        secure: the connection is under TLS.
    """

    def __init__(
        self, password: bytes, nonce: bytes, *, end_point: bytes = b"", offered: bool = False, secure: bool = False
    ) -> None:
        self._password = saslprep(password)
        self._nonce = base64.b64encode(nonce)
        binds = bool(end_point) and offered
        self.mechanism = BOUND if binds else PLAIN
        able = secure and bool(end_point)
        self._header = b"p=tls-server-end-point,," if binds else b"y,," if able and not offered else b"n,,"
        self._binding = base64.b64encode(self._header + (end_point if binds else b""))
        self._bare = b"n=,r=" + self._nonce  # the name of the startup message counts
        self._signature = b""

    def first(self) -> bytes:
        """The client's first message."""
        return self._header + self._bare

    def final(self, server_first: bytes) -> bytes:
        """The client's proof. Takes time, as the server asks. Raises ``UpstreamUnreachable``."""
        match = _FIRST.fullmatch(server_first)
        if match is None or not match[1].startswith(self._nonce) or len(match[1]) < len(self._nonce) + 8:
            raise UpstreamUnreachable("the database's part of SCRAM is malformed", _HINT)
        iterations = int(match[3])
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise UpstreamUnreachable(
                f"the database asks for {iterations} iterations of SCRAM",
                f"set the password again with scram_iterations from {MIN_ITERATIONS} to {MAX_ITERATIONS}",
            )
        try:
            salt = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise UpstreamUnreachable("the database's part of SCRAM is malformed", _HINT) from None
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        key = _hmac(salted, b"Client Key")
        without_proof = b"c=" + self._binding + b",r=" + match[1]
        said = b",".join((self._bare, server_first, without_proof))
        signature = _hmac(hashlib.sha256(key).digest(), said)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self._signature = _hmac(_hmac(salted, b"Server Key"), said)
        return without_proof + b",p=" + base64.b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        """See that the server knows the password too. Raises ``UpstreamUnreachable``."""
        match = _FINAL.fullmatch(server_final)
        if match is None or not hmac.compare_digest(base64.b64decode(match[1]), self._signature or b"-"):
            raise UpstreamUnreachable("the database did not prove that it knows the password", "is it the right host?")


def saslprep(password: bytes) -> bytes:
    """Prepare a password (RFC 4013); one that cannot be is taken as it is, as PostgreSQL does."""
    if password.isascii():
        return password
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    prohibited = (
        stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
        stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
        stringprep.in_table_c9, stringprep.in_table_a1,
    )  # fmt: skip
    if not normal or any(forbids(char) for char in normal for forbids in prohibited) or not _one_direction(normal):
        return password
    return normal.encode()


def _one_direction(text: str) -> bool:
    """RFC 3454, section 6."""
    right_to_left = [stringprep.in_table_d1(char) for char in text]
    if not any(right_to_left):
        return True
    return right_to_left[0] and right_to_left[-1] and not any(map(stringprep.in_table_d2, text))


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
