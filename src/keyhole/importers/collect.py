"""Collecting what an importer finds: the reasons for leaving something alone that all sources have in common."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD, MAX_PATH, parse_field
from keyhole.core.value import Secret
from keyhole.importers.found import LIMITS, Asked, Found, Origin, Report, Skipped, Spot
from keyhole.importers.judge import Judgement, judge

GENERIC_PLACEHOLDER = "keyhole_placeholder_"
_REFERENCE = re.compile(r"\$\{|\$[A-Za-z_]|\$\(|\{\{|%\([a-z_]+\)s")
_BRACES = re.compile(r"\$\{|\{\{")
_ELSEWHERE = ("op://", "vault:", "keyhole:", "ref+", "ENC[", "encrypted:", "keychain:", "secret://")
_MARKS = re.compile(r"[^a-z0-9.]+")


class Collector:
    """Gathers the report on one source.

    Args:
        origin: of the bytes.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._found: list[Found] = []
        self._skipped: list[Skipped] = []
        self._notes: list[str] = []
        self._asked: list[Asked] = []

    def skip(self, name: str, where: str, why: str, *, failed: bool = False) -> None:
        """Leave something alone. ``name`` is a key of the source, never a value."""
        self._count()
        self._skipped.append(Skipped(shown(name), where, why, failed))

    def note(self, text: str) -> None:
        """Tell the person."""
        self._notes.append(text)

    def ask(self, helper: str, server: str) -> None:
        """Another program has it."""
        self._asked.append(Asked(helper, server))

    def variable(self, name: str, value: str | None, where: str, spots: tuple[Spot, ...], **more: Any) -> None:
        """The content of an environment variable, or of a setting that is called like one."""
        if self.refused(name, value, where, references=False) or value is None:
            return
        seems: Judgement = more.pop("seems", None) or judge(name, value)
        self.add(
            Found(
                name=more.pop("secret", "") or f"{segment(self.origin.group)}/{segment(name)}",
                fields={DEFAULT_FIELD: Secret(value)},
                where=where,
                kind=seems.kind,
                variable=name,
                spots=spots,
                doubt=seems.doubt,
                stays=seems.stays,
                **more,
            )
        )

    def add(self, found: Found) -> None:
        """Take a credential."""
        self._count()
        self._found.append(found)

    def refused(self, name: str, value: str | None, where: str, *, references: bool = True) -> bool:
        """Whether a value cannot be taken, and then it is noted why: for reasons that no name makes good.

        Args:
            name: of the entry.
            value: ``None`` for what is not UTF-8.
            where: it stands.
            references: ``${NAME}`` in it is filled in by the program that reads the file.
        """
        why = ""
        if value is None:
            why = "is not text in UTF-8"
        elif not value:
            why = "is empty"
        elif len(value.encode("utf-8", "surrogatepass")) > LIMITS.value:
            why = f"is longer than {LIMITS.value // 1024} KiB"
        elif GENERIC_PLACEHOLDER in value:
            why = "is a placeholder of Keyhole already"
        elif "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            why = "is not text"
        elif value.startswith(_ELSEWHERE):
            why = "refers to another place, or is encrypted already"
        elif references and _BRACES.search(value):
            why = "refers to a variable, which is not expanded here"
        if why:
            self.skip(name, where, why)
        return bool(why)

    def take(self, parts: Sequence[str], fields: Mapping[str, str | None], where: str, **more: Any) -> None:
        """Take an entry of another manager: all of its fields that have a value, as one secret.

        Args:
            parts: of its name as the source has them; where there is one only, the group comes before it.
            fields: as the source calls them, each with its value; ``None`` for what is not UTF-8.
            where: it stands.
            more: attributes of ``Found``.
        """
        taken = dict[str, Secret]()
        shown_as = "/".join(parts)
        for field, value in fields.items():
            name = field_name(field)
            if name in taken:
                self.skip(f"{shown_as}#{field}", where, f"would be the field {name!r}, which another field is")
            elif not self.refused(f"{shown_as}#{field}", value, where, references=False) and value is not None:
                taken[name] = Secret(value)
        named = [segment(part) for part in parts]
        named = [segment(self.origin.group), *named] if len(named) == 1 else named
        if len("/".join(named)) > MAX_PATH:
            self.skip(shown_as, where, f"has a name of more than {MAX_PATH} bytes")
        elif taken:
            self.add(Found("/".join(named), taken, where, **more))

    def report(self, seen: str = "") -> Report:
        """All of it; ``seen``: why somebody else may have seen it."""
        return Report(tuple(self._found), tuple(self._skipped), tuple(self._notes), tuple(self._asked), seen)

    def _count(self) -> None:
        if len(self._found) + len(self._skipped) >= LIMITS.entries:
            raise InvalidRequest(f"it has more than {LIMITS.entries} entries", "import what is in it by hand")


def refers(value: str) -> bool:
    """Does the value name a variable, a command or a template, whose content comes later?"""
    return bool(_REFERENCE.search(value))


def segment(text: str) -> str:
    """A part of a secret's name, made of a name that somebody else chose: ``API_KEY`` becomes ``api-key``."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return _MARKS.sub("-", plain).strip("-.")[:63].rstrip("-.") or "unnamed"


def field_name(text: str) -> str:
    """The name of a field, made of a name that somebody else chose: as it is, where that can be one."""
    try:
        name = parse_field(text)
    except InvalidRequest:
        return segment(text)
    return segment(text) if "#" in name or "/" in name else name


def shown(name: str) -> str:
    """A key of a source for a person: cut, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in name[:80])


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of an array in a JSON document; none where it is something else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
