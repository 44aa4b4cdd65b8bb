"""What a command says: results on stdout, messages on stderr, errors in one line or as one JSON object."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

import click

from keyhole.core.errors import KeyholeError

_RED, _YELLOW, _BOLD, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


class Output:
    """The two streams of a command.

    Attributes:
        json: results and errors are JSON objects.
        quiet: no messages but errors.
        shown: makes of a text what people read, such as names of ids; applied to all but exact results.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.shown: Callable[[str], str] = str

    def result(self, data: Any, text: str | Iterable[str] = (), *, exact: bool = False) -> None:
        """The result of the command.

        Args:
            data: what ``--json`` prints, on one line.
            text: what a person sees instead: a text, or its lines.
            exact: it has a value, which is printed as it is.
        """
        if self.json:
            line = json.dumps(data, ensure_ascii=False)
            click.echo(line if exact else self.shown(line))
            return
        for line in [text] if isinstance(text, str) else text:
            click.echo(printable(self.shown(line)))

    def lines(self, data: Iterable[Any]) -> None:
        """Results that are JSON with and without ``--json``, a line for each."""
        for item in data:
            click.echo(self.shown(json.dumps(item, ensure_ascii=False)))

    def done(self, data: Any, message: str) -> None:
        """A command that changes something says what it changed: a message, or the result with ``--json``."""
        if self.json:
            self.result(data)
        else:
            self.say(message)

    def table(self, data: Any, head: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """Rows under a head; ``data`` with ``--json``, a message where there are no rows."""
        if self.json:
            self.result(data)
            return
        cells = [[printable(self.shown(str(cell if cell is not None else ""))) for cell in row] for row in rows]
        if not cells:
            self.say(empty)
            return
        widths = [max(_columns(row[n]) for row in [list(head), *cells]) for n in range(len(head))]
        click.echo(self._styled(_line([h.upper() for h in head], widths), _BOLD, sys.stdout))
        for row in cells:
            click.echo(_line(row, widths))

    def say(self, message: str) -> None:
        """A message for a person."""
        if message and not self.quiet:
            click.echo(printable(self.shown(message)), err=True)

    def warn(self, message: str) -> None:
        """Something that went well and should not be overlooked."""
        if not self.quiet:
            click.echo(f"{self._styled('warning:', _YELLOW, sys.stderr)} {printable(self.shown(message))}", err=True)

    def error(self, error: KeyholeError) -> None:
        """Why a command failed, and the next step. Where nobody can be told, the exit code has to do."""
        if self.json:
            detail = {"code": error.code, "reason": error.reason, "hint": error.hint, "request_id": error.request_id}
            lines = [self.shown(json.dumps({"error": detail}, ensure_ascii=False))]
        else:
            lines = [f"{self._styled('error:', _RED, sys.stderr)} {printable(self.shown(error.reason))}"]
            lines += [f"  next: {printable(self.shown(error.hint))}"] if error.hint else []
        with contextlib.suppress(OSError):
            for line in lines:
                click.echo(line, err=True)

    @staticmethod
    def _styled(text: str, style: str, stream: TextIO) -> str:
        return f"{style}{text}{_PLAIN}" if coloured(stream) else text


def coloured(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose user wants colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """The text without what a terminal would obey: names and paths in a journal were written by strangers."""
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(cells, widths, strict=True)
    return "  ".join(cell + " " * (width - _columns(cell)) for cell, width in pairs).rstrip()


def _columns(text: str) -> int:
    """What a text takes on a terminal, where ideographs are two columns wide (UAX #11)."""
    return len(text) + sum(unicodedata.east_asian_width(char) in {"W", "F"} for char in text)
