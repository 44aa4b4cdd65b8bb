"""Names that only members can read: in a vault with opaque names, an id stands wherever a name would.

An id is the name under a key that all members have (AES-SIV, ``crypto.siv``), so the same name has the same id in two
clones, whoever has the key reads it, and whoever has not finds nothing to try guesses on. Names are filled up to one of
a few lengths first. Ids bind what they are of: the vault, the kind, and for a secret its group.

The keys lie sealed for all members in ``.x/names.age``, whose digest the signed list of members has. Whoever is taken
out keeps the keys of its time, so names that are new from then on are under a new one; a name that has an id keeps it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError
from keyhole.crypto import age
from keyhole.crypto.age import Identity, Recipient
from keyhole.crypto.siv import KEY_SIZE, NameKey
from keyhole.repo.names import HIDDEN, hidden_kind

NAMES = ".x/names.age"
_MOST_KEYS = 10_000
_LENGTHS = (32, 104, 256)  # bytes to which names are filled up
_ID = re.compile(rf"(?<![A-Za-z0-9_-])(?:(?P<group>{HIDDEN})/)?(?P<id>{HIDDEN})(?![A-Za-z0-9_-])")


class Kind(StrEnum):
    """What an id is of; its first letter begins the id."""

    GROUP = "group"
    SECRET = "secret"  # noqa: S105 - the word
    MEMBER = "member"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    raw: bytes = field(repr=False)
    names: NameKey = field(repr=False)

    @classmethod
    def of(cls, raw: bytes) -> _Key:
        mark = hashlib.sha256(b"keyhole-repo-names-id-v1" + raw).digest()[:3]
        return cls(base64.urlsafe_b64encode(mark).decode(), raw, NameKey(raw))


class Book:
    """The names of one vault.

    Args:
        vault: its id.
        keys: the oldest first; new names are under the last.
    """

    def __init__(self, vault: str, keys: Sequence[bytes]) -> None:
        self._vault = vault
        self._keys = [_Key.of(raw) for raw in keys]
        self._known: dict[tuple[str, str], str] = {}

    @classmethod
    def create(cls, vault: str) -> Book:
        """With one new key."""
        return cls(vault, [os.urandom(KEY_SIZE)])

    @classmethod
    def open(cls, vault: str, sealed: bytes, identity: Identity) -> Book:
        """From ``.x/names.age``, which the caller has found to be the signed one.

        Raises:
            NotFound: it is not for this key.
            IntegrityError: it has something else.
        """
        try:
            keys = [bytes.fromhex(text) for text in json.loads(age.decrypt(sealed, [identity]))["keys"]]
            if 0 < len(keys) <= _MOST_KEYS:
                return cls(vault, keys)
        except (ValueError, KeyError, TypeError, RecursionError, InvalidRequest):
            pass
        raise IntegrityError(f"{NAMES} has no keys of names", "restore it from its history")

    def seal(self, recipients: Sequence[Recipient]) -> bytes:
        """The bytes of ``.x/names.age`` for these."""
        text = json.dumps({"keys": [key.raw.hex() for key in self._keys]})
        return age.encrypt(text.encode(), recipients)

    def renewed(self) -> Book:
        """With a key that nobody had until now, for names that have no id yet."""
        return self._with([*(key.raw for key in self._keys), os.urandom(KEY_SIZE)])

    def joined(self, other: Book) -> Book:
        """With the keys of another book as well; new names stay under the last key of this one."""
        mine = [key.raw for key in self._keys]
        return self._with([*mine[:-1], *(key.raw for key in other._keys if key.raw not in mine), mine[-1]])

    def covers(self, other: Book) -> bool:
        """Whether it has every key of another."""
        return {key.raw for key in self._keys} >= {key.raw for key in other._keys}

    def _with(self, keys: Sequence[bytes]) -> Book:
        book = Book(self._vault, keys)
        book._known = dict(self._known)
        return book

    def learn(self, ids: Iterable[str]) -> None:
        """Take these ids and stems for what their names already have. Those that cannot be read are passed over."""
        places = {key.id: number for number, key in enumerate(self._keys)}
        for text in sorted(ids, key=lambda text: places.get(text.rpartition("/")[2][2:6], 0)):
            group, _, part = text.rpartition("/")
            for each, parent in ((group, ""), (part, group)):
                name = self.read(each, parent)
                if name:
                    self._known.setdefault((f"{hidden_kind(each)}{parent}", name), each)

    def hide(self, kind: Kind, name: str, group: str = "") -> str:
        """The id of a name; an id stays what it is.

        Args:
            kind: what it is a name of.
            name: as people say it, or its id.
            group: id of the group of a secret.

        Raises:
            InvalidRequest: it looks like an id, and is none of this vault.
        """
        if hidden_kind(name):
            if hidden_kind(name) != kind[0] or self.read(name, group) is None:
                raise InvalidRequest(f"{name[:16]}… is no id of a {kind} here", "give its name")
            return name
        known = self._known.get((f"{kind[0]}{group}", name))
        if known is not None:
            return known
        room = next((length for length in _LENGTHS if len(name.encode()) <= length), 0)
        if not room:
            raise InvalidRequest(f"a {kind} has at most {_LENGTHS[-1]} characters", "choose a shorter name")
        key = self._keys[-1]
        filled = name + "\0" * (room - len(name.encode()))
        return f"{kind[0]}_{key.id}{key.names.encrypt(filled, self._parent(kind[0], group))}"

    def stem(self, name: str) -> str:
        """The stem of ``group/name``."""
        group, _, part = name.partition("/")
        group = self.hide(Kind.GROUP, group)
        return f"{group}/{self.hide(Kind.SECRET, part, group)}"

    def read(self, text: str, group: str = "") -> str | None:
        """The name that an id stands for; ``None`` for what is no id under these keys."""
        kind = hidden_kind(text)
        for key in self._keys if kind else ():
            if key.id == text[2:6]:
                try:
                    return key.names.decrypt(text[6:], self._parent(kind, group if kind == "s" else "")).rstrip("\0")
                except KeyholeError:  # another key with this mark, or no id of this vault
                    continue
        return None

    def shown(self, text: str) -> str:
        """A text in which every id that can be read is the name it stands for."""

        def named(match: re.Match[str]) -> str:
            group, part = match["group"] or "", match["id"]
            names = [self.read(group) or group] if group else []
            return "/".join([*names, self.read(part, group) or part])

        return _ID.sub(named, text) if "_" in text else text

    def _parent(self, kind: str, group: str) -> str:
        return f"keyhole-repo-name-v1/{self._vault}/{kind}/{group}"


def digest(sealed: bytes) -> str:
    """What the list of members says of ``.x/names.age``."""
    return hashlib.sha256(sealed).hexdigest()
