"""How fast logs go through the scrubbers, on one core: known values in every encoding, and shapes of credentials."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

from keyhole.scrub import Scrubber
from keyhole.scrub.shaped import ShapeStream

_PIECE = 65536
_VALUES = 50
_WORDS = ("request", "finished", "user", "cache", "token", "retry", "GET", "/v1/orders", "upstream", "ms", "password")


def lines(size: int, *, hits: bool, seed: int = 1) -> bytes:
    """A log of about that many bytes: half of it text and half JSON, with a value now and then if that is wanted."""
    chance, out, done = random.Random(seed), [], 0
    while done < size:
        words = " ".join(chance.choices(_WORDS, k=8))
        number, identity = chance.randrange(10**6), f"{chance.getrandbits(64):016x}"
        told = f"{identity} {value(chance.randrange(_VALUES))}" if hits and not chance.randrange(100) else identity
        if chance.random() < 0.5:
            line = f"2026-01-02T03:04:05.{number:06}Z INFO {words} id={told} took {number % 977}ms\n"
        else:
            line = json.dumps({"level": "info", "message": words, "id": told, "path": f"/v1/items/{number}"}) + "\n"
        out.append(line)
        done += len(line)
    return "".join(out).encode()


def value(number: int) -> str:
    """One of the known values."""
    return f"sk_bench_{random.Random(1000 + number).getrandbits(160):040x}"


def scrubbing(size: int, rounds: int = 3) -> dict[str, dict[str, float]]:
    """Megabytes a second of processor time, the best of some rounds.

    Measured are a clean log, and one with a value in each hundredth line, of which none may be left.
    """
    scrubber = Scrubber.compile(value(number).encode() for number in range(_VALUES))
    ShapeStream().feed(lines(20_000, hits=True))  # patterns are compiled when they are first needed

    def known(data: bytes) -> bytes:
        stream = scrubber.stream()
        return b"".join([*(stream.feed(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)), stream.finish()])

    def shapes(data: bytes) -> bytes:
        stream = ShapeStream()
        return b"".join([*(stream.feed(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)), stream.finish()])

    clean, dirty = lines(size, hits=False), lines(size, hits=True)
    masked = known(dirty)
    assert len(masked) == len(dirty)
    assert not any(value(number).encode() in masked for number in range(_VALUES))
    return {
        "known": {"clean": _speed(known, clean, rounds), "dirty": _speed(known, dirty, rounds)},
        "shapes": {"clean": _speed(shapes, clean, rounds), "dirty": _speed(shapes, dirty, rounds)},
    }


def _speed(work: Callable[[bytes], bytes], data: bytes, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        work(data)
        times.append(time.process_time() - begin)
    return len(data) / 1e6 / min(times)
