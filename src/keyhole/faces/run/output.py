"""What the command prints, on its way to where our own output goes, without the values that it was given.

Where our output is a pipe or a file, the command writes into a pipe. Where it is a terminal, the command has a terminal
of its own, so that it sees what it would have seen: size, colours, a person. If our input is that terminal too, and we
are in its foreground, then the command's terminal also controls it: keys go there byte by byte, and Ctrl-C, Ctrl-Z and
``/dev/tty`` mean that one (pty(7), setsid(2)). Otherwise it stays in our session, and its signals are the usual ones.

A value is found wherever the writes cut it. What may be the beginning of one waits until it is decided; the first bytes
of it appear soon, so that a person sees the prompt that ends in one and the keys that he presses.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import termios
import threading
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from keyhole.scrub import Scrubber

_PIECE = 1 << 16
_SOON = 0.05  # seconds without output after which the first bytes of a possible value appear
_SHOWN = 4  # of them: fewer than what is ordinarily shown of a key
_LAST = 0.1  # seconds without output after which nothing is waited for, when the command has ended
_REST = 2 << 20  # bytes that are passed on then: more than any pipe holds
_TYPED = 4096
_BACKGROUND = 0.2  # seconds between looks whether we are in the foreground again
_OFLAG = 1


class Output:
    """The standard streams of one command. Use as a context manager; ``begin`` when the command is about to start.

    Args:
        scrubber: of the values.
        session: the command may get a session of its own, with its terminal.

    Attributes:
        stdin: a descriptor for the command; ``None`` for what we have ourselves.
        stdout: the same.
        stderr: the same.
        apart: the command is to lead a session of its own, whose terminal is its stdin.
    """

    def __init__(self, scrubber: Scrubber, *, session: bool = True) -> None:
        self._scrubber = scrubber
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None
        self.apart = session and os.isatty(0) and os.isatty(1) and _in_foreground()
        self._theirs: list[int] = []
        self._masters: list[tuple[int, int]] = []  # of terminals, and which of our descriptors each stands for
        self._before: list[Any] | None = None  # modes of our terminal, while it is raw
        self._ended, self._end = os.pipe()
        self._threads: list[threading.Thread] = []
        self._opened = [self._ended, self._end]

    def __enter__(self) -> Self:
        known: dict[tuple[int, int], int] = {}
        for number in (1, 2):
            status = os.fstat(number)
            same = (status.st_dev, status.st_ino)
            if not _leads_somewhere(status.st_mode, number):
                continue
            if same not in known:  # one for both where they are one, so that what is printed keeps its order
                known[same] = self._open(number)
            if number == 1:
                self.stdout = known[same]
            else:
                self.stderr = known[same]
        if self.apart:
            self.stdin = self.stdout
        return self

    def __exit__(self, *_: object) -> None:
        """Deliver all that the command has printed, and give our terminal back."""
        os.write(self._end, b".")
        for descriptor in self._theirs:
            os.close(descriptor)
        for thread in self._threads:
            thread.join()
        self.pause()
        for descriptor in self._opened:
            os.close(descriptor)

    def begin(self) -> None:
        """From now on our terminal is the command's."""
        if self.apart:
            self.resume()
            self._start(self._type)

    def know(self, scrubber: Scrubber) -> None:
        """From now on these are the values; also what was given to the command after it had started is one."""
        self._scrubber = scrubber

    def pause(self) -> None:
        """Our terminal is our caller's for a while."""
        if self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            self._before = None

    def resume(self) -> None:
        """Our terminal is the command's again, if we are in its foreground."""
        if self.apart and self._before is None and _in_foreground():
            with suppress(termios.error):
                self._before = termios.tcgetattr(0)
                tty.setraw(0, termios.TCSADRAIN)
        self.resize()

    def resize(self) -> None:
        """Let the command's terminal have the size of ours."""
        for master, number in self._masters:
            with suppress(termios.error, OSError):
                size = fcntl.ioctl(number, termios.TIOCGWINSZ, b"\0" * 8)
                if fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8) != size:
                    fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    def _open(self, number: int) -> int:
        if os.isatty(number):
            ours, theirs = os.openpty()
            modes = termios.tcgetattr(0 if self.apart else number)
            if not self.apart:  # our own terminal does it, once
                modes[_OFLAG] &= ~termios.OPOST
            termios.tcsetattr(theirs, termios.TCSANOW, modes)
            self._masters.append((ours, number))
            self.resize()
            os.set_blocking(ours, False)
        else:
            ours, theirs = os.pipe()
        self._theirs.append(theirs)
        self._opened.append(ours)
        self._start(self._copy, ours, number)
        return theirs

    def _start(self, work: Callable[..., None], *given: int) -> None:
        def run() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
            work(*given)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _copy(self, source: int, target: int) -> None:
        """Pass on what comes until all copies of the command's end are closed, or the command has ended."""
        scrubber = self._scrubber
        stream = scrubber.stream()
        wait: float | None = None
        left = -1  # bytes that are still passed on, once the command has ended
        while left:
            ready = _ready((source,) if left >= 0 else (source, self._ended), _LAST if left >= 0 else wait)
            wait = None
            if source in ready:
                data = _read(source)
                if data is None:
                    break
                before = b""
                if scrubber is not self._scrubber:
                    scrubber, before = self._scrubber, stream.finish()
                    stream = scrubber.stream()
                out = before + stream.feed(data)
                wait = _SOON if stream.held else None
                left = max(left - len(data), 0) if left >= 0 else left
            elif self._ended in ready:
                left = _REST
                continue
            elif left >= 0:
                break
            else:
                out = stream.show(_SHOWN)
            if not _write(target, out):
                self._forget(source)
                return
        _write(target, stream.finish())

    def _forget(self, source: int) -> None:
        """Nobody reads any more, which the command is to notice as it would without us."""
        self._masters = [each for each in self._masters if each[0] != source]
        self._opened.remove(source)
        os.close(source)

    def _type(self) -> None:
        """Pass on what is typed."""
        master = self._masters[0][0]
        while self._ended not in _ready((0, self._ended), None):
            if self._before is None or not _in_foreground():
                _ready((self._ended,), _BACKGROUND)
                continue
            try:
                data = os.read(0, _TYPED)
            except OSError:
                return
            while data:
                try:
                    data = data[os.write(master, data) :]
                except BlockingIOError:
                    if self._ended in _ready((self._ended,), None, master):
                        return
                except OSError:
                    return


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _leads_somewhere(mode: int, number: int) -> bool:
    """Whether somebody sees what is written there: not in ``/dev/null``."""
    return not stat.S_ISCHR(mode) or os.isatty(number)


def _ready(reading: Sequence[int], seconds: float | None, writing: int = -1) -> set[int]:
    poll = select.poll()
    for descriptor in reading:
        poll.register(descriptor, select.POLLIN)
    if writing >= 0:
        poll.register(writing, select.POLLOUT)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}


def _read(source: int) -> bytes | None:
    """What is there; ``None`` at the end, which Linux reports as an error for a terminal that nobody has open."""
    try:
        return os.read(source, _PIECE) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def _write(target: int, data: bytes) -> bool:
    """Write it all; whether somebody reads."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            _ready((), None, target)
        except OSError:
            return False
    return True
