"""Values of the vault, looked for in memory: which secret is it that lies there?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from ahocorasick_rs import BytesAhoCorasick

from keyhole.cli.base import Session
from keyhole.core.errors import KeyholeError
from keyhole.process import harden_process
from keyhole.scrub import MIN_SECRET
from keyhole.sprawl.finding import Finding, as_text
from keyhole.sprawl.walk import Content

_DEEPEST = 16  # segments of a name


class Known:
    """Values and the names of their secrets.

    Args:
        values: value to name; those that are too short to be told from anything are left out.
    """

    def __init__(self, values: Mapping[bytes, str] | None = None) -> None:
        self._names = {value: name for value, name in (values or {}).items() if len(value) >= MIN_SECRET}
        self._values = list(self._names)
        self._scan = BytesAhoCorasick(self._values).find_matches_as_indexes if self._values else None

    def __repr__(self) -> str:
        return "Known(***)"

    @staticmethod
    def fingerprint(value: bytes) -> str:
        """Of a value that no shape tells."""
        return hashlib.sha256(b"keyhole finding\0\0" + value).hexdigest()[:16]

    def name_of(self, value: bytes) -> str:
        """The secret that has this value; empty for none."""
        return self._names.get(value.strip(), "")

    def find(self, content: Content) -> Iterator[tuple[Finding, bytes]]:
        """Where a value stands as it is."""
        if self._scan is None:
            return
        text = as_text(content.data)
        for index, start, end in self._scan(text):
            value = self._values[index]
            line = text.count(b"\n", 0, start) + 1
            column = start - text.rfind(b"\n", 0, start)
            title, told = "value of a secret of the vault", self.fingerprint(value)
            yield Finding(content.label, line, column, "vault-secret", title, told, "", start, end), value


def known_values(session: Session) -> Known:
    """All values that the caller may read. Each is a read on record."""
    return Known(read_values(session))


def read_values(session: Session) -> dict[bytes, str]:
    """All values that the caller may read, and the names of their secrets. Each is a read on record."""
    harden_process()
    values: dict[bytes, str] = {}
    refused = 0
    for name in _names(session, "", 0):
        try:
            data = session.client.read(f"secret/data/{name}").data["data"]
        except KeyholeError:
            refused += 1
            continue
        for field, value in data.items():
            if isinstance(value, str):
                values.setdefault(value.strip().encode(), name if field == "value" else f"{name}#{field}")
    if refused:
        session.out.warn(f"{refused} secrets cannot be read by you, and were not compared")
    return values


def _names(session: Session, below: str, depth: int) -> Iterator[str]:
    for name in session.names(f"secret/metadata/{below}".rstrip("/")):
        if not name.endswith("/"):
            yield f"{below}{name}"
        elif depth < _DEEPEST:
            yield from _names(session, f"{below}{name}", depth + 1)
