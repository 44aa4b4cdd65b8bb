"""One org floods, another makes a call now and then: how long these take, without and with the flood."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.load import Job
from bench.machine import cores, pinned
from bench.subjects import Keyhole

FLOODS = {
    "kept": ("https", "/small", "keepalive", 64),
    "plain": ("http", "/small", "keepalive", 256),
    "new": ("https", "/small", "fresh", 32),
    "large": ("https", "/large", "keepalive", 16),
}
"""Scheme, path, mode and connections of what the first org does."""
_PAUSE = 0.02  # seconds between two calls of the quiet org


def tenants(keyhole: Keyhole, seconds: float) -> dict[str, dict[str, float]]:
    """What the quiet org notices, for each kind of flood, and what the flood itself got done."""
    token, ca = _quiet_org(keyhole)
    quiet = keyhole.job("https", "/small", "steady", token=token, seconds=seconds, pause=_PAUSE)
    quiet.ca = ca
    found = {"alone": _run(quiet)}
    for name, (scheme, path, mode, connections) in FLOODS.items():
        flood = keyhole.job(scheme, path, mode, connections=connections, seconds=seconds + 1.0)
        with _start(flood, "nice", "-n", "5") as process:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
            found[name] = _run(quiet)
            out, _ = process.communicate(timeout=300)
        found[name]["flood_rate"] = json.loads(out)["rate"]
    return found


_QUIET: dict[int, tuple[str, str]] = {}  # of each server, by its process


def _quiet_org(keyhole: Keyhole) -> tuple[str, str]:
    if keyhole.pid not in _QUIET:
        _QUIET[keyhole.pid] = keyhole.add_org("quiet")
    return _QUIET[keyhole.pid]


def _start(job: Job, *before: str) -> subprocess.Popen[bytes]:
    """A generator that has its job. The one that floods makes room on their core for the one that measures."""
    command = pinned(cores()[1], *before, sys.executable, "-m", "bench.load")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(job.encode() + b"\n")
    process.stdin.flush()
    return process


def _run(job: Job) -> dict[str, float]:
    with _start(job) as process:
        out, _ = process.communicate(timeout=300)
    if process.returncode:
        raise SystemExit("the load generator failed")
    numbers: dict[str, float] = json.loads(out)
    return numbers
