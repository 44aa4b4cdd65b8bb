"""What all fuzzers share: inputs out of a corpus, a watch for what never ends, and a smaller input where one fails.

A target says what came of an input in a few words. An input with new words is kept and made more of, so that a long run
gets into corners that the corpus does not show; and everything follows from the seed.
"""

import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from keyhole.core.errors import KeyholeError

HANG = 5.0  # seconds of processor time for one input
_LONGEST = 4096  # bytes of an input
_SHRINKS = 4000  # tries to make one smaller


class Target:
    """One thing that is fuzzed."""

    words = ()
    """What its language is made of."""

    def corpus(self):
        """Inputs to begin with."""
        raise NotImplementedError

    def check(self, data, rng):
        """See what comes of an input; says it in a few words. Raises whatever must never come of one."""
        raise NotImplementedError


class Found(AssertionError):
    """An input from which something came that never must.

    Args:
        name: of the target.
        data: the input.
        error: what came of it.
    """

    def __init__(self, name, data, error):
        super().__init__(f"{name}: {type(error).__name__}: {error}\n  input: {data!r}")
        self.data = data


class Hang(Exception):
    """An input took too long."""


@dataclass
class Mutator:
    """Makes inputs."""

    rng: random.Random
    corpus: list
    words: tuple = ()
    seen: set = field(default_factory=set)

    def one(self):
        rng, data = self.rng, bytearray(self.rng.choice(self.corpus))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            rng.choice(_WAYS)(self, data, rng.randint(0, len(data)))
        return bytes(data[:_LONGEST])

    def learn(self, data, outcome):
        """Keep an input of which something new came."""
        if outcome not in self.seen:
            self.seen.add(outcome)
            self.corpus.append(data)

    def _span(self, data, at):
        return slice(at, min(len(data), at + self.rng.choice((1, 1, 2, 4, 16, 64))))

    def _flip(self, data, at):
        if at < len(data):
            data[at] ^= 1 << self.rng.randrange(8)

    def _put(self, data, at):
        data[at:at] = bytes(self.rng.choice(_ODD) for _ in range(self.rng.choice((1, 1, 2, 5))))

    def _write(self, data, at):
        if at < len(data):
            data[at] = self.rng.randrange(256)

    def _cut(self, data, at):
        del data[self._span(data, at)]

    def _end(self, data, at):
        del data[at:]

    def _again(self, data, at):
        data[at:at] = data[self._span(data, at)] * self.rng.choice((1, 1, 2, 9))

    def _move(self, data, at):
        span = self._span(data, at)
        piece = data[span]
        del data[span]
        to = self.rng.randint(0, len(data))
        data[to:to] = piece

    def _word(self, data, at):
        if self.words:
            data[at : at + self.rng.choice((0, 0, 1, 4))] = self.rng.choice(self.words)

    def _case(self, data, at):
        span = self._span(data, at)
        data[span] = bytes(data[span]).swapcase()

    def _splice(self, data, at):
        other = self.rng.choice(self.corpus)
        begin = self.rng.randint(0, len(other))
        data[at:] = other[begin:]

    def _graft(self, data, at):
        other = self.rng.choice(self.corpus)
        begin = self.rng.randint(0, len(other))
        data[at:at] = other[begin : begin + self.rng.choice((2, 8, 40))]


_ODD = b"\x00\x01\t\n\x0b\x0c\r \"#%&'+,-./0129:;<=>?@A[\\]_`a{|}~\x7f\x80\x85\xa0\xad\xc0\xc3\xe2\xff"
_WAYS = tuple(
    getattr(Mutator, f"_{name}")
    for name in ("flip", "put", "write", "cut", "end", "again", "move", "case", "splice", "graft", "word", "word")
)


@contextlib.contextmanager
def watched(seconds):
    """Raise ``Hang`` in what takes more processor time; 0 for no watch."""
    if not seconds:
        yield
        return

    def ring(*_):
        raise Hang(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def outcome_of(target, data, hang=HANG):
    """What comes of one input; the same each time."""
    with watched(hang):
        return target.check(data, random.Random(data))


def fuzz(name, target, seed, *, number=0, seconds=0.0, hang=HANG):
    """Give a target so many inputs, or its corpus and then others for so long.

    Returns how often what came of them. Raises ``Found``.
    """
    rng = random.Random(f"{name}/{seed}")
    corpus = target.corpus()
    mutator, until, outcomes = Mutator(rng, list(corpus), target.words), time.monotonic() + seconds, Counter()
    for data in corpus if seconds else ():
        _try(name, target, data, hang, mutator, outcomes)
    while outcomes.total() < number or (seconds and time.monotonic() < until):
        _try(name, target, mutator.one(), hang, mutator, outcomes)
    return outcomes


def _try(name, target, data, hang, mutator, outcomes):
    try:
        outcome = outcome_of(target, data, hang)
    except Exception as error:  # whatever it is, it is what we look for
        small, error = smaller(target, data, error, hang)
        raise Found(name, small, error) from error
    outcomes[outcome] += 1
    mutator.learn(data, outcome)


def smaller(target, data, error, hang=HANG):
    """An input, as short as can be, from which the same kind of error comes, and that error."""
    kind, tries, size = (type(error), str(error)[:24]), 0, max(1, len(data) // 2)
    while size and tries < _SHRINKS:
        at = 0
        while at < len(data) and tries < _SHRINKS:
            shorter = data[:at] + data[at + size :]
            tries += 1
            try:
                outcome_of(target, shorter, hang)
            except Exception as other:  # noqa: BLE001 - as in ``_try``
                if (type(other), str(other)[:24]) == kind:
                    data, error = shorter, other
                    continue
            at += size
        size //= 2
    return data, error


def refused(error):
    """What came of an input that was refused; every refusal says why, and never with a traceback of its own."""
    assert isinstance(error, KeyholeError)
    return f"refused: {error.reason}"


def cut(data, rng):
    """The same bytes in pieces."""
    way = rng.randrange(4)
    if way == 0:
        return [data[at : at + 1] for at in range(len(data))]
    edges = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((1, 2, 5, 20))))
    return [data[begin:end] for begin, end in zip([0, *edges], [*edges, len(data)], strict=True)]
