"""The keys of one org, and the envelope around each stored entry.

    entry        format 0x01 | term u32 | data key, wrapped | body
    record       format 0x01 | term u32 | salt 16 | body
    wrapped key  nonce 12 | ciphertext 32 | tag 16
    body         nonce 12 | ciphertext | tag 16

Every entry has a fresh random data key; the key of its term wraps only data keys. Associated data of the body is where
the entry lies (``Where``); the wrapped data key adds its term. So no ciphertext opens in the place of another org,
mount, key, revision or term, and a new term rewraps an entry without a new meaning.

Safe here: keys of different use are independent random bytes, never derived from one another; a data key seals one
message. A term's key seals one short message an entry: the vault counts these, and rotates long before 2**32.
Journal records are sealed under keys derived from the journal key of a term (``journal_key``). They cannot be sealed
again (the digest chain covers their bytes), so journal terms live on when an entry term is dropped.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn, Self

from keyhole.core.errors import InvalidRequest
from keyhole.crypto import siv
from keyhole.crypto.aead import KEY_SIZE, OVERHEAD, AeadKey, does_not_open
from keyhole.crypto.journal_key import SALT_SIZE, JournalKey

FORMAT = 1
_HEADER = struct.Struct(">BI")  # format, term
_PLACE = struct.Struct(">BHHHQ")  # format, sizes of org, mount and key, revision
_TERM = struct.Struct(f">I{KEY_SIZE}s")
_COUNT = struct.Struct(">H")
_WRAPPED_END = _HEADER.size + OVERHEAD + KEY_SIZE
ENTRY_OVERHEAD = _WRAPPED_END + OVERHEAD
_RECORD_BODY = _HEADER.size + SALT_SIZE
RECORD_OVERHEAD = _RECORD_BODY + OVERHEAD
LAST_TERM = 2**32 - 1
_OPENED = 1024


class Where(NamedTuple):
    """The place of an entry: what its ciphertext is bound to.

    Attributes:
        org: id of the org, never its name.
        mount: id of the mount, never its path, so that mounts can be moved.
        key: the store's key.
        revision: the store's revision that this entry is written at.
    """

    org: str
    mount: str
    key: str
    revision: int


def associated_data(where: Where) -> bytes:
    """A place as bytes, unambiguous: all sizes stand before the three strings.

    Raises:
        InvalidRequest: a string is over 65,535 bytes or not valid Unicode, or the revision is not in 0..2**64-1.
    """
    try:
        org, mount, key = where.org.encode(), where.mount.encode(), where.key.encode()
        return _PLACE.pack(FORMAT, len(org), len(mount), len(key), where.revision) + org + mount + key
    except (struct.error, UnicodeEncodeError):
        raise InvalidRequest("this place cannot be encoded: a name is too long or a revision is out of range") from None


def term_of(blob: bytes) -> int:
    """The term under which an entry or a record was sealed, read from its header; proved only by opening it.

    Raises:
        IntegrityError: it is too short or of an unknown format.
    """
    if len(blob) < RECORD_OVERHEAD or blob[0] != FORMAT:
        raise does_not_open()
    term: int = _HEADER.unpack_from(blob)[1]
    return term


class Keyring:
    """All keys of one org. Immutable: ``rotated`` and ``without`` return another keyring.

    Made by ``generate`` or ``from_bytes``. ``to_bytes`` is key material: the caller seals it under the root key.
    """

    __slots__ = (
        "_entries",
        "_entry_keys",
        "_journal_keys",
        "_journals",
        "_name",
        "_opened",
        "_token",
        "current",
        "name_key",
    )

    current: int
    """The term that new entries and records are sealed under: always the highest."""
    name_key: siv.NameKey
    """For names in the store. It belongs to no term: another key would be another name for everything."""

    def __init__(self, entries: Mapping[int, bytes], journals: Mapping[int, bytes], name: bytes, token: bytes) -> None:
        self._entries = dict(sorted(entries.items()))
        self._journals = dict(sorted(journals.items()))
        self._entry_keys = {term: AeadKey(key) for term, key in self._entries.items()}
        self._journal_keys = {term: JournalKey(key) for term, key in self._journals.items()}
        self._name = name
        self._token = token
        # Data keys of entries that were opened lately, ready for use with their place as bytes, by what wraps them and
        # where they belong. They open nothing that the keys above would not.
        self._opened: dict[tuple[bytes, Where], tuple[AeadKey, bytes]] = {}
        self.name_key = siv.NameKey(name)
        self.current = max(self._entries)

    @classmethod
    def generate(cls) -> Self:
        """A new keyring with term 1."""
        return cls({1: os.urandom(KEY_SIZE)}, {1: os.urandom(KEY_SIZE)}, os.urandom(siv.KEY_SIZE), os.urandom(KEY_SIZE))

    @property
    def terms(self) -> tuple[int, ...]:
        """The terms whose entries can be opened, ascending."""
        return tuple(self._entries)

    def rotated(self) -> Self:
        """A keyring with one more term, which becomes current; everything older stays readable."""
        term = self.current + 1
        if term > LAST_TERM:
            raise InvalidRequest("there is no further term")
        entries = {**self._entries, term: os.urandom(KEY_SIZE)}
        journals = {**self._journals, term: os.urandom(KEY_SIZE)}
        return type(self)(entries, journals, self._name, self._token)

    def without(self, term: int) -> Self:
        """A keyring that cannot open entries of this term any more. Journal records of the term stay readable.

        Raises:
            InvalidRequest: it is the current term, or not in this keyring.
        """
        if term == self.current:
            raise InvalidRequest("the current term cannot be dropped", "rotate first, then rewrap every entry")
        if term not in self._entries:
            raise InvalidRequest(f"there is no term {term} in this keyring")
        entries = {number: key for number, key in self._entries.items() if number != term}
        return type(self)(entries, self._journals, self._name, self._token)

    def seal(self, plaintext: bytes, where: Where) -> bytes:
        """The envelope of an entry: a fresh data key wrapped by the current term, and the body under it."""
        place = associated_data(where)
        header = _HEADER.pack(FORMAT, self.current)
        data_key = os.urandom(KEY_SIZE)
        wrapped = self._entry_keys[self.current].seal(data_key, place + header[1:])
        return b"".join((header, wrapped, AeadKey(data_key).seal(plaintext, place)))

    def open(self, blob: bytes, where: Where) -> bytes:
        """The plaintext of an entry that was sealed for exactly this place, under any term of this keyring.

        Raises:
            IntegrityError: anything else.
        """
        if len(blob) < ENTRY_OVERHEAD or blob[0] != FORMAT:
            raise does_not_open()
        wrapped = blob[:_WRAPPED_END]
        key, place = self._opened.get((wrapped, where)) or self._unwrap(wrapped, where)
        return key.open(blob[_WRAPPED_END:], place)

    def _unwrap(self, wrapped: bytes, where: Where) -> tuple[AeadKey, bytes]:
        place = associated_data(where)
        term = self._entry_keys.get(_HEADER.unpack_from(wrapped)[1])
        if term is None:
            raise does_not_open()
        key = AeadKey(term.open(wrapped[_HEADER.size :], place + wrapped[1 : _HEADER.size]))
        if len(self._opened) >= _OPENED:
            self._opened.clear()
        found = self._opened[wrapped, where] = key, place
        return found

    def rewrap(self, blob: bytes, old: Where, new: Where) -> bytes:
        """The same plaintext for another place (usually the next revision), under the current term and a new data key.

        Raises:
            IntegrityError: the blob does not open at its old place.
        """
        return self.seal(self.open(blob, old), new)

    def seal_records(self, records: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Bodies of journal records under the journal key of the current term, each bound to its clear header."""
        key, salt = self._journal_keys[self.current].sealer(len(records))
        return key.seal_each(records, _HEADER.pack(FORMAT, self.current) + salt)

    def open_record(self, blob: bytes, aad: bytes) -> bytes:
        """The body of a journal record.

        Raises:
            IntegrityError: wrong keyring, another clear header, or the record was changed.
        """
        key = self._journal_keys.get(term_of(blob))
        if key is None:
            raise does_not_open()
        header = blob[:_RECORD_BODY]
        return key.opener(header[_HEADER.size :]).open(blob[_RECORD_BODY:], header + aad)

    def keyed_hash(self, purpose: str, data: bytes) -> bytes:
        """HMAC-SHA256 (32 bytes) for looking something up without storing it; purposes never collide.

        Args:
            purpose: what the hash is for, for example ``"token"``.
            data: what is looked up: enough entropy, or known to be public.
        """
        label = purpose.encode()
        return hmac.digest(self._token, _COUNT.pack(len(label)) + label + data, "sha256")

    def to_bytes(self) -> bytes:
        """Key material in clear: format, name key, token key, entry terms, journal terms."""
        parts = [bytes((FORMAT,)), self._name, self._token]
        for keys in (self._entries, self._journals):
            parts.append(_COUNT.pack(len(keys)))
            parts.extend(_TERM.pack(term, key) for term, key in keys.items())
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The keyring that ``to_bytes`` wrote.

        Raises:
            IntegrityError: unknown format, wrong sizes, terms out of order, or a current term without journal key.
        """
        name_end = 1 + siv.KEY_SIZE
        token_end = name_end + KEY_SIZE
        try:
            entries, position = _read_terms(data, token_end)
            journals, end = _read_terms(data, position)
        except struct.error:
            raise does_not_open() from None
        if data[0] != FORMAT or end != len(data) or max(entries) != max(journals):
            raise does_not_open()
        return cls(entries, journals, data[1:name_end], data[name_end:token_end])

    def __repr__(self) -> str:
        return f"Keyring(current={self.current}, terms={self.terms}, ***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is never serialised but by to_bytes")


def _read_terms(data: bytes, position: int) -> tuple[dict[int, bytes], int]:
    (count,) = _COUNT.unpack_from(data, position)
    position += _COUNT.size
    keys: dict[int, bytes] = {}
    last = 0
    for _ in range(count):
        term, key = _TERM.unpack_from(data, position)
        if term <= last:
            raise does_not_open()
        keys[term] = key
        last = term
        position += _TERM.size
    if not keys:
        raise does_not_open()
    return keys, position
