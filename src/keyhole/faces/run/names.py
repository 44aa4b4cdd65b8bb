"""The answers to questions for names inside a network without a way out: an address that is ours, for every name.

Addresses are given out of 198.18.0.0/15, which is nobody's (RFC 2544, RFC 6890), one a name, so that a port which was
tried can be told with the name that was meant. Nothing leaves: no question is asked of anybody else.
"""

from __future__ import annotations

import ipaddress
import re
import struct

_FIRST = int(ipaddress.IPv4Address("198.18.0.1"))
_MOST = (1 << 17) - 3  # addresses; later names share the first one
_A, _ANY, _IN = 1, 255, 1
_TTL = 60  # seconds
_RESPONSE, _RECURSION = 0x8000, 0x0180  # QR; RD and RA (RFC 1035 section 4.1.1)
_OPCODE, _REFUSED, _MALFORMED = 0x7800, 5, 1
_LONGEST = 253  # characters of a name
# Any other one could say more than a name in a record, and on a terminal.
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


class Names:
    """The addresses that were given out."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}
        self._names: list[str] = []

    def address(self, name: str) -> int:
        """The address of a name, as a number."""
        if name not in self._given:
            if len(self._names) >= _MOST:
                return _FIRST
            self._given[name] = _FIRST + len(self._names)
            self._names.append(name)
        return self._given[name]

    def name(self, address: str) -> str:
        """The name for which an address was given; the address itself where that is none of ours."""
        try:
            number = int(ipaddress.IPv4Address(address)) - _FIRST
        except ValueError:
            return address
        return self._names[number] if 0 <= number < len(self._names) else address

    def answer(self, question: bytes) -> bytes:
        """The answer to one message (RFC 1035 section 4); empty for what is no question.

        ``A`` gets an address, any other type an answer without one, so that clients take that of version 4, and find no
        record that would have them encrypt the name or use a protocol without one (RFC 9460).
        """
        if len(question) < 12:
            return b""
        ident, flags, count = struct.unpack(">HHH", question[:6])
        if flags & _RESPONSE:
            return b""
        end = _end_of_name(question)
        if flags & _OPCODE or count != 1 or not end or len(question) < end + 4:
            return struct.pack(">HHHHHH", ident, _RESPONSE | _MALFORMED, 0, 0, 0, 0)
        kind, group = struct.unpack(">HH", question[end : end + 4])
        asked = question[12 : end + 4]
        name = _text(question[12:end])
        if group != _IN or len(name) > _LONGEST or (name and not _HOST.fullmatch(name)):
            return struct.pack(">HHHHHH", ident, _RESPONSE | _REFUSED, 1, 0, 0, 0) + asked
        records = b""
        if kind in {_A, _ANY} and name:
            # The name is that of the question, at offset 12 (section 4.1.4).
            records = struct.pack(">HHHIHI", 0xC00C, _A, _IN, _TTL, 4, self.address(name))
        return struct.pack(">HHHHHH", ident, _RESPONSE | _RECURSION, 1, 1 if records else 0, 0, 0) + asked + records


def _end_of_name(message: bytes) -> int:
    """Where the name of the question ends; 0 when it is malformed. A question's name is not compressed."""
    at = 12
    while at < len(message):
        length = message[at]
        at += 1 + length
        if length == 0:
            return at
        if length > 63:
            return 0
    return 0


def _text(labels: bytes) -> str:
    found = []
    at = 0
    while labels[at]:
        found.append(labels[at + 1 : at + 1 + labels[at]].decode("latin-1").lower())
        at += 1 + labels[at]
    return ".".join(found)
