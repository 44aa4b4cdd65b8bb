"""What is known of a run, in a file that is only added to: a line before each attempt of a step and one after it.

A line is on the disk before what it tells of is done (``begin``), or before anything relies on it (``end``). So of a
run that was killed at any point, each step has ended, was never begun, or was begun and nobody here knows how it ended.
The file has the document, what was said at the start and what each step gave, scrubbed; no token and no value.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from keyhole.core.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from keyhole.core.times import format_time

FOLDER = "workflows"
_SUFFIX = ".jsonl"
_RUN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_LARGEST = 64 * 1024 * 1024  # bytes of the file of one run
_MOST_RUNS = 1000
_TRIES, _LOOKED = 10, 0.02  # how often a run is tried to be taken, and seconds between, in which who looks has looked


@dataclass(slots=True)
class StepState:
    """What is known of a step.

    Attributes:
        attempts: that were begun.
        begun: when the last one was, in seconds since the epoch.
        accessor: of the token that the last one was made with.
        ended: what it gave; ``None`` while that is not known.
        ms: that the last attempt took.
    """

    attempts: int = 0
    begun: float = 0.0
    accessor: str = ""
    ended: dict[str, Any] | None = None
    ms: int = 0

    @property
    def open(self) -> bool:
        """It was begun, and how it ended is not known."""
        return self.ended is None and self.attempts > 0


@dataclass(slots=True)
class RunState:
    """A run.

    Attributes:
        run: its id.
        workflow: its name.
        agent: who acts.
        vault: where.
        document: the workflow, as it was at the start.
        inputs: what was said at the start, with defaults.
        on_behalf_of: for whom.
        started: seconds since the epoch.
        steps: by id, in the order in which they were begun.
        ending: ``done``, ``failed``, ``waiting``, ``doubt``, or empty: it runs, or was killed.
        changed: when something was last written.
    """

    run: str
    workflow: str
    agent: str
    vault: str
    document: dict[str, Any]
    inputs: dict[str, Any]
    on_behalf_of: str
    started: float
    steps: dict[str, StepState] = field(default_factory=dict)
    ending: str = ""
    changed: float = 0.0

    def take(self, event: Mapping[str, Any]) -> None:
        """What a line says. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for none that is ours."""
        kind, at = event["event"], float(event["at"])
        self.changed = at
        if kind == "begin":
            step = self.steps.setdefault(str(event["step"]), StepState())
            step.attempts, step.begun, step.ended = int(event["attempt"]), at, None
            step.accessor, self.ending = str(event["accessor"]), ""
        elif kind == "end":
            step = self.steps.setdefault(str(event["step"]), StepState())
            step.ended, step.ms = dict(event["gave"]), int(event["ms"])
        elif kind == "over":
            self.ending = str(event["ending"])
        elif kind == "resumed":
            self.ending = ""
        else:
            raise ValueError(kind)


def folder_of(home: Path) -> Path:
    """Where the files of runs are."""
    return home / FOLDER


def parse_run(text: str) -> str:
    """An id of a run. Raises ``InvalidRequest``."""
    if not _RUN.fullmatch(text):
        raise InvalidRequest("this is no id of a run", "keyhole workflow list")
    return text


def runs(home: Path) -> Iterator[RunState]:
    """All runs that can be read, the latest first."""
    files = sorted(folder_of(home).glob(f"*{_SUFFIX}"), key=lambda path: path.name, reverse=True)
    for path in files:
        with contextlib.suppress(InvalidRequest, NotFound, StoreUnavailable):
            yield look(home, path.name.removesuffix(_SUFFIX))


def look(home: Path, run: str) -> RunState:
    """What is known of a run, without changing anything.

    Raises:
        NotFound: there is no such run.
        InvalidRequest: its file is none of ours.
    """
    path = folder_of(home) / f"{parse_run(run)}{_SUFFIX}"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no run {run} on this machine", "keyhole workflow list") from None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror}", "look at its permissions") from None
    return _read(content, path)[0]


def is_running(home: Path, run: str) -> bool:
    """Whether a process works on it now."""
    try:
        descriptor = os.open(folder_of(home) / f"{parse_run(run)}{_SUFFIX}", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class StateFile:
    """The file of a run that this process works on; no other one does.

    Use ``create`` or ``reopen``. Each method returns when its line is on the disk.
    """

    def __init__(self, descriptor: int, path: Path, state: RunState, size: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self._size = size
        self.state = state

    @classmethod
    def create(cls, home: Path, state: RunState) -> Self:
        """A new run. Raises ``StoreUnavailable`` or ``Conflict``."""
        folder = folder_of(home)
        path = folder / f"{parse_run(state.run)}{_SUFFIX}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_room(home)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            raise Conflict(f"there is a run {state.run} already", "keyhole workflow resume RUN") from None
        except OSError as error:
            raise _unwritable(path, error) from None
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        file = cls(descriptor, path, state, 0)
        names = ("run", "workflow", "agent", "vault", "document", "inputs", "on_behalf_of", "started")
        file._write({"format": 1, **{name: getattr(state, name) for name in names}})
        _sync_folder(folder)
        return file

    @classmethod
    def reopen(cls, home: Path, run: str) -> Self:
        """A run that has stopped. A line that was cut off is taken out.

        Raises:
            NotFound: there is none.
            Conflict: a process works on it.
            InvalidRequest: its file is none of ours.
        """
        path = folder_of(home) / f"{parse_run(run)}{_SUFFIX}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise NotFound(f"there is no run {run} on this machine", "keyhole workflow list") from None
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            _lock(descriptor)
            state, whole = _read(path.read_bytes(), path)
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(f"a process works on the run {run} now", "wait for it, or end it first") from None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, path, state, whole)

    def begin(self, step: str, attempt: int, accessor: str) -> None:
        """An attempt is about to be made."""
        self._add({"event": "begin", "step": step, "attempt": attempt, "accessor": accessor})

    def end(self, step: str, gave: Mapping[str, Any], ms: int) -> None:
        """How it ended."""
        self._add({"event": "end", "step": step, "gave": gave, "ms": ms})

    def resumed(self) -> None:
        """The run goes on."""
        self._add({"event": "resumed"})

    def over(self, ending: str) -> None:
        """The run has ended, or cannot go on by itself."""
        self._add({"event": "over", "ending": ending})

    def close(self) -> None:
        """Let others work on it."""
        os.close(self._descriptor)

    def _add(self, event: dict[str, Any]) -> None:
        event["at"] = round(time.time(), 3)
        self._write(event)
        self.state.take(event)

    def _write(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        if self._size + len(content) > _LARGEST:
            raise StoreUnavailable(f"the run has given more than {_LARGEST} bytes", "say with keep what is needed")
        try:
            while content:
                written = os.write(self._descriptor, content)
                self._size += written
                content = content[written:]
            os.fsync(self._descriptor)
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _lock(descriptor: int) -> None:
    """Take a run. Raises ``BlockingIOError`` where a process works on it, and not for one that only looks."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_LOOKED)
        else:
            return


def _read(content: bytes, path: Path) -> tuple[RunState, int]:
    """The run that a file tells of, and how much of it is whole."""
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    broken = InvalidRequest(f"{path} is no file of a run, or is damaged", "start a new run")
    if not lines or len(content) > _LARGEST:
        raise broken
    try:
        head = json.loads(lines[0])
        if head.pop("format") != 1:
            raise broken
        state = RunState(**head)
        for line in lines[1:]:
            state.take(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise broken from None
    return state, whole


def _make_room(home: Path) -> None:
    """Take out the oldest runs that are done, when there are many."""
    files = sorted(folder_of(home).glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in files[: max(0, len(files) - _MOST_RUNS + 1)]:
        run = path.name.removesuffix(_SUFFIX)
        with contextlib.suppress(InvalidRequest, NotFound, StoreUnavailable, FileNotFoundError):
            if look(home, run).ending == "done" and not is_running(home, run):
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{path} cannot be written: {error.strerror}", "nothing is done that is not written down")


def shown_time(seconds: float) -> str:
    """A time for people."""
    return format_time(seconds) if seconds else ""
