"""The values that tripwires of an org look for, as far as they were opened.

After a change only what it can have changed is opened again:

1. what services lend that were made or changed, and what was lent of another value than was known;
2. of ``secret/``, what has another revision, or lies in another mount;
3. what is being rotated, or was until now;
4. of sources, what was watched for already, as answers come to their end, and what has answered since.

Of what was not there a part is looked at again each time, the part that was not for longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from keyhole.broker.lendings import Lendings, stored
from keyhole.core.errors import Expired, KeyholeError, NotFound
from keyhole.core.inject import KINDS
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault

MOST_VALUES = 256
"""Secrets of an org whose values are looked for; more would make every request slow."""
_LENT = 600.0  # seconds for which a value is looked for that was lent and cannot be opened


@dataclass(slots=True)
class _Opened:
    """What was found of something that services lend.

    Attributes:
        values: that nobody may see.
        marks: of its paths in ``secret/`` just before; ``None`` where it is not known whether it is still so.
        lent: values that were lent and not found, with the times until which they count.
    """

    values: tuple[bytes, ...] = field(default=(), repr=False)
    marks: tuple[object, ...] | None = None
    lent: dict[bytes, float] = field(default_factory=dict, repr=False)

    def all(self) -> tuple[bytes, ...]:
        """All values."""
        return (*self.values, *self.lent)


class Watched:
    """The values of one org.

    Attributes:
        behind: something was lent since ``learn`` began that was not known.
    """

    def __init__(self) -> None:
        self.behind = False
        self._lendings = Lendings(())
        self._rotated: set[str] = set()
        self._answered = 0
        self._waiting: dict[str, None] = {}
        self._found: dict[str, _Opened] = {}
        self._missing: dict[str, _Opened] = {}  # the one that was looked at last is the last

    def lent(self, name: str, values: Iterable[bytes], now: float) -> None:
        """A service lent these, which were not known. They are from now on, whether they can be opened or not."""
        self.behind = True
        lent = self._lendings.of.get(name)
        if lent is None:  # made since, and opened the next time
            return
        opened = self._found[lent] = self._taken(lent)
        opened.lent |= dict.fromkeys(values, now + _LENT)
        self._waiting[lent] = None

    async def learn(self, vault: Vault, state: OrgState, lendings: Lendings) -> Mapping[str, tuple[bytes, ...]]:
        """Open what is needed, and no more than can be looked for.

        Returns:
            The values of what services lend, by what ``Lendings.of`` says.
        """
        self.behind = False
        self._follow(lendings)
        await self._look_again(vault, state)
        now, known = vault.clock.now(), set[bytes]()
        for lent, opened in self._found.items():
            opened.lent = {value: until for value, until in opened.lent.items() if until > now}
            if lent not in self._waiting:
                known.update(opened.all())
        for lent in list(self._waiting):
            if len(known) >= MOST_VALUES:
                break
            del self._waiting[lent]
            known.update((await self._open(vault, state, lent)).all())
        return {lent: values for lent, opened in self._found.items() if (values := opened.all())}

    def _follow(self, lendings: Lendings) -> None:
        """Take up what services lend now."""
        if lendings is self._lendings:
            return
        gone, come = lendings.services.differences(self._lendings.services)
        for lent in gone:
            self._taken(lent)
            self._waiting.pop(lent, None)
        self._waiting |= dict.fromkeys(sorted(come))
        self._lendings = lendings

    async def _look_again(self, vault: Vault, state: OrgState) -> None:
        """Find what of all that was opened has to be opened again."""
        rotating = {path for path, _ in await vault.rotations.under_way(state)}
        looked = [*self._found, *islice(self._missing, MOST_VALUES)]
        marks = await self._marks(vault, state, looked)
        again: dict[str, None] = {}
        for lent in looked:
            opened = self._found.get(lent) or self._missing.get(lent) or _Opened()
            if opened.marks is None or opened.marks != marks[lent]:
                again[lent] = None
            elif lent in self._missing:
                self._missing[lent] = self._missing.pop(lent)
            elif self._lendings.services[lent].sourced:
                again[lent] = None
        self._answered, paths = vault.sources.answered(state.org.id, self._answered)
        for path in (*paths, *(self._rotated | rotating)):
            again |= dict.fromkeys(self._lendings.at.get(path, ()))
        self._rotated = rotating
        self._waiting = again | self._waiting

    async def _marks(
        self, vault: Vault, state: OrgState, looked: Iterable[str]
    ) -> Mapping[str, tuple[object, ...] | None]:
        of = {lent: stored(self._lendings.services[lent]) for lent in looked}
        wanted = list({path for each in of.values() for path in each})
        found = await vault.sources.marks(state, wanted)
        if found is None:
            return dict.fromkeys(of)
        marks = dict(zip(wanted, found, strict=True))
        return {lent: tuple(marks[path] for path in each) for lent, each in of.items()}

    async def _open(self, vault: Vault, state: OrgState, lent: str) -> _Opened:
        service, values = self._lendings.services[lent], tuple[bytes, ...]()
        marks = (await self._marks(vault, state, [lent]))[lent]
        failed = False
        try:
            public = KINDS[service.inject.kind].public
            found = await vault.watched(state, service)
            values = tuple(value.reveal() for name, value in found if name not in public)
        except (NotFound, Expired):  # a secret that is not there has no value to look for
            pass
        except KeyholeError:
            failed = True
        opened = self._taken(lent)
        opened.marks = None if failed else marks
        opened.values = opened.values if failed else values
        for value in opened.values:
            opened.lent.pop(value, None)
        (self._found if opened.values or opened.lent else self._missing)[lent] = opened
        return opened

    def _taken(self, lent: str) -> _Opened:
        """What is known of it, which is to be put back."""
        return self._found.pop(lent, None) or self._missing.pop(lent, None) or _Opened()
