"""Where a batch goes: into a vault with services and policies, or into a repo vault. Both say what became of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keyhole.cli.base import Session
from keyhole.cli.import_store import CONFLICT, REPLACED, STORED, THERE, WOULD, Mover
from keyhole.core.errors import Conflict, Expired, InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers import Found
from keyhole.importers.recognise import Proposal
from keyhole.repo import changes
from keyhole.repo.names import DEFAULT_GROUP, parse_secret
from keyhole.repo.opened import Opened
from keyhole.repo.sealing import Actor
from keyhole.repo.tree import Change

if TYPE_CHECKING:
    from keyhole.cli.repo.place import Place

_NO_PART = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Became:
    """What became of one secret.

    Attributes:
        name: as it is called in the sink.
        fields: of it.
        where: it stood in its source.
        state: ``stored``, ``replaced``, ``already there``, ``conflict``, ``would be stored``.
        why: it is a conflict.
        due: why its value has to be changed at the source.
    """

    name: str
    fields: tuple[str, ...]
    where: str
    state: str
    why: str = ""
    due: str = ""


class Sink(Protocol):
    """Takes secrets one after the other; what it was given counts once ``finish`` has returned."""

    @property
    def marks(self) -> bool:
        """Whether it keeps by itself that a value is due for another one."""

    def put(self, found: Found, due: str) -> list[Became]:
        """Take one secret. Raises ``KeyholeError`` where the sink cannot be asked."""

    def finish(self) -> None:
        """All have been given. Raises ``KeyholeError`` where the sink cannot be changed."""


class VaultSink:
    """A local vault, or that of a server.

    Args:
        session: the vault.
        over: put new versions over secrets that have another value.
        dry: only look.
    """

    marks = False

    def __init__(self, session: Session, *, over: bool, dry: bool) -> None:
        self._session = session
        self._dry = dry
        self._mover = Mover(session, agent="", services=False, over=over, dry=dry)

    def put(self, found: Found, due: str) -> list[Became]:
        """See ``Sink.put``."""
        moved = self._mover.move("this source", Proposal(found, found.name, found.fields, ()))
        if found.labels and moved.state in {STORED, REPLACED} and moved.why == "":
            labels = {key[:128]: text for key, text in found.labels.items() if key and text and text.isprintable()}
            self._session.client.write(f"secret/metadata/{found.name}", {"custom_metadata": labels})
        taken = due if moved.state != CONFLICT else ""
        return [Became(moved.name, tuple(sorted(found.fields)), found.where, moved.state, moved.why, taken)]

    def finish(self) -> None:
        """Nothing is left to be done."""


class RepoSink:
    """A repo vault: one change, one commit. A field is a secret of its own there, with its name after a dot.

    Args:
        place: the vault.
        over: put new values over others.
        dry: only look.
    """

    marks = True

    def __init__(self, place: Place, *, over: bool, dry: bool) -> None:
        self._place = place
        self._over = over
        self._dry = dry
        self._identity = place.identity()
        self._opened = place.open()
        self._values: dict[str, tuple[Secret, str]] = {}
        self._given: dict[str, Secret] = {}

    def put(self, found: Found, due: str) -> list[Became]:
        """See ``Sink.put``."""
        became = []
        for field, value in found.fields.items():
            name = repo_name(found.name, field, alone=len(found.fields) == 1)
            state, why = self._judged(name, value)
            if state in {STORED, REPLACED} or (state == WOULD and self._dry):
                self._values[name] = (value, due)
            marked = due if state != CONFLICT else ""
            became.append(Became(name, (field,), found.where, state, why, marked))
        return became

    def _judged(self, name: str, value: Secret) -> tuple[str, str]:
        try:
            stem = self._opened.where(parse_secret(name))
        except InvalidRequest as error:
            return CONFLICT, error.reason
        given = self._given.setdefault(name, value)
        if given is not value:
            same = given == value
            return (THERE, "found twice") if same else (CONFLICT, f"another value of this source is called {name}")
        try:
            self._opened.sidecar(stem)
        except NotFound:
            return (WOULD if self._dry else STORED), ""
        try:
            if self._opened.get(name, [self._identity]) == value:
                return THERE, ""
        except Expired:
            pass
        except NotFound:
            if not self._over:
                return CONFLICT, "there is a secret of that name, which your key does not open"
        if not self._over:
            return CONFLICT, "the vault has another value under that name"
        return (WOULD if self._dry else REPLACED), ""

    def finish(self) -> None:
        """Seal everything, in one commit. Raises ``Conflict`` where the vault has changed meanwhile."""
        if self._dry or not self._values:
            return
        count = len(self._values)
        message = f"agent-vault: import {count} secret{'s' if count > 1 else ''}"

        def all_of_it(opened: Opened, actor: Actor) -> Change:
            if any(_version(opened, name) != _version(self._opened, name) for name in self._values):
                raise Conflict("the vault was changed meanwhile", "the same again")
            return changes.store_all(opened, actor, self._values, message)

        self._place.change(all_of_it)


def _version(opened: Opened, name: str) -> int:
    found = opened.secrets.get(opened.where(name))
    return 0 if found is None else found[1].version


def repo_name(name: str, field: str, *, alone: bool) -> str:
    """``group/name`` for a field of a secret whose name has any number of parts."""
    group, slash, rest = name.partition("/")
    if not slash:
        group, rest = DEFAULT_GROUP, group
    parts = [part for part in rest.split("/") if part]
    if field != DEFAULT_FIELD or not alone:
        parts.append(field)
    return f"{_part(group)}/{'.'.join(_part(part) for part in parts)}"


def _part(text: str) -> str:
    return _NO_PART.sub("-", text).strip("-.") or "unnamed"
