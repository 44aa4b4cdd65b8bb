"""Header sections as they travel in HTTP/2 (RFC 7541).

What comes in is read with the dynamic table that the peer may fill. What goes out never enters one: so no secret stands
beside a guess in a compression context, nothing of one answer outlives it, and nobody can make us hold a table.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from hpack import Decoder, HPACKError, OversizedHeaderListError

from keyhole.core.message import Headers
from keyhole.net.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from keyhole.net.http2.limits import Http2Limits

_INDEXED = 0x80  # the bit of a field that stands in a table (section 6.1)
_LONG_INDEX = 0xFF
_TABLE_UPDATE = 0x20
_OVERHEAD = 32  # bytes that a field counts for besides its own (RFC 9113 section 6.5.2)
# Statuses and names of the static table (appendix A) that answers have.
_STATUSES = {200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14}
_STATUS_NAME = b"\x08"
_NAMES = {
    b"accept-ranges": 18,
    b"age": 21,
    b"cache-control": 24,
    b"content-encoding": 26,
    b"content-length": 28,
    b"content-type": 31,
    b"date": 33,
    b"etag": 34,
    b"expires": 36,
    b"last-modified": 44,
    b"location": 46,
    b"server": 54,
    b"set-cookie": 55,
    b"vary": 59,
    b"via": 60,
}


class FieldDecoder:
    """Reads the header blocks of one peer, all of them and in order: each changes how the next is read.

    Raises:
        ConnectionFault: a block cannot be read, or holds more than the limit; the following cannot be read either.
    """

    __slots__ = ("_decoder", "_most", "_table")

    def __init__(self, limits: Http2Limits) -> None:
        self._decoder = Decoder(max_header_list_size=limits.header_list_bytes)
        self._most = limits.header_list_bytes
        self._table = limits.table_bytes

    def settled(self) -> None:
        """The peer knows our settings: its table may be no larger from now on (RFC 9113 section 4.3.1)."""
        self._decoder.max_allowed_table_size = self._table

    def decode(self, block: bytes) -> Headers:
        """The fields of one block."""
        try:
            fields = self._decode(block)
        except OversizedHeaderListError:
            raise ConnectionFault("the header section is too large", ENHANCE_YOUR_CALM) from None
        except (HPACKError, IndexError):
            raise ConnectionFault("the header section cannot be decompressed", COMPRESSION_ERROR) from None
        if self._decoder.header_table_size > self._decoder.max_allowed_table_size:
            raise ConnectionFault("the table of header fields is larger than allowed", COMPRESSION_ERROR)
        if len(fields) * _OVERHEAD + sum(len(name) + len(value) for name, value in fields) > self._most:
            raise ConnectionFault("the header section is too large", ENHANCE_YOUR_CALM)
        return fields

    def _decode(self, block: bytes) -> Headers:
        """What stands in a table is looked up here, ten times as fast; from the first other field on it is the library.

        A client that sends the same request again sends nothing else.
        """
        get = self._decoder.header_table.get_by_index
        fields: Headers = []
        most = self._most // _OVERHEAD
        for place, byte in enumerate(block):
            if byte < _INDEXED or byte == _LONG_INDEX or len(fields) > most:
                if fields and byte & 0xE0 == _TABLE_UPDATE:
                    raise HPACKError("a table size update after a field")
                rest = self._decoder.decode(block[place:], raw=True)
                return fields + [(bytes(name), bytes(value)) for name, value in rest]
            name, value = get(byte & 0x7F)
            fields.append((bytes(name), bytes(value)))
        return fields


def encode_fields(fields: Iterable[tuple[bytes, bytes]], status: int = 0) -> bytes:
    """A header block of literals that enter no table (section 6.2.2).

    Args:
        fields: names in lower case, and values.
        status: of an answer; 0 for trailers.
    """
    parts = [_status(status)] if status else []
    for name, value in fields:
        size = len(value)
        parts.append(_name(name) + (bytes((size,)) if size < 127 else integer(size, 7)) + value)
    return b"".join(parts)


@functools.lru_cache(maxsize=256)
def _name(name: bytes) -> bytes:
    index = _NAMES.get(name)
    return b"\x00" + integer(len(name), 7) + name if index is None else integer(index, 4)


@functools.lru_cache(maxsize=600)
def _status(status: int) -> bytes:
    index = _STATUSES.get(status)
    return _STATUS_NAME + b"\x03%d" % status if index is None else bytes((_INDEXED | index,))


def integer(number: int, bits: int, first: int = 0) -> bytes:
    """An integer that has so many bits of its first byte, the others of which are given (section 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((first | number,))
    out = [first | most]
    number -= most
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))
