"""In which passes of an event loop something is done, and how often in one of them."""

import asyncio
import functools
from collections import Counter


class Passes:
    """Counts passes from ``begin`` to ``end``, and what is done in each.

    Attributes:
        done: how often something was done, by pass.
    """

    def __init__(self):
        self.done = Counter()
        self._number = 0
        self._going = False

    def begin(self):
        """Count from now on; called in the loop."""
        self._going = True
        self._another()

    def _another(self):
        self._number += 1
        if self._going:
            asyncio.get_running_loop().call_soon(self._another)

    def end(self):
        """Count no longer."""
        self._going = False

    def note(self, monkeypatch, where, name, counts=lambda *_: True):
        """Count the calls of a method for which ``counts`` is true."""
        original = getattr(where, name)

        @functools.wraps(original)
        def noted(*given, **named):
            if self._going and counts(*given):
                self.done[self._number] += 1
            return original(*given, **named)

        monkeypatch.setattr(where, name, noted)

    @property
    def most(self):
        """What was done in one pass at most."""
        return max(self.done.values(), default=0)
