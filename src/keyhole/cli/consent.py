"""What is asked of the person at the terminal: a hidden value, a passphrase, a yes.

Questions go to the terminal itself, so that stdin and stdout may be pipes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.value import Secret

_LINE = 64 * 1024
LONGEST = 32 << 20
"""Bytes of a value that is read at all; what keeps it has bounds of its own."""


def has_terminal() -> bool:
    """Is there a terminal that a person could answer on?"""
    if os.name != "posix":
        return sys.stdin.isatty()
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ask_hidden(prompt: str) -> Secret:
    """One line that is not shown while it is typed."""
    import getpass  # noqa: PLC0415  # most commands ask nothing

    try:
        with _interruptible():
            return Secret(getpass.getpass(prompt))
    except EOFError:
        sys.stderr.write("\n")
        raise InvalidRequest("nothing was entered", "type it, or give it on stdin") from None


def ask_text(prompt: str) -> str:
    """One line that may be seen. The question is shown on stderr, since stdout is for results."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    with _interruptible():
        line = sys.stdin.readline(_LINE)
    if not line:
        sys.stderr.write("\n")
        raise InvalidRequest("nothing was entered", "type it, or give it with --host or --set")
    return line.strip()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question at once: the handler of a running event loop only takes a note, and reading goes on."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def ask_new_passphrase() -> Secret:
    """A new passphrase, entered twice."""
    first = ask_hidden("New passphrase: ")
    if first != ask_hidden("The same again: "):
        raise InvalidRequest("the two entries differ", "try again")
    return first


def ask_yes(question: str) -> bool:
    """A yes or no; no unless the person says yes. The question is shown on the terminal, never on stdout."""
    if not has_terminal():
        return False
    if os.name != "posix":
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    with Path("/dev/tty").open("r+b", buffering=0) as terminal:
        terminal.write(f"{question} [y/N] ".encode())
        answer = terminal.readline(_LINE)
    return answer.strip().lower() in {b"y", b"yes"}


class PassphraseSource:
    """Where the passphrase comes from: a file, a file descriptor, or the person.

    Attributes:
        fd: number of an open file descriptor; its first line. It wins over the file, which may be a standing setting.
        file: path of a file; its first line.
    """

    def __init__(self) -> None:
        self.fd: int | None = None
        self.file: str = ""
        self._read: Secret | None = None

    @property
    def given(self) -> bool:
        """Does the command line say where it is?"""
        return self.fd is not None or bool(self.file)

    def get(self, prompt: str = "Passphrase of the vault: ") -> Secret | None:
        """The passphrase of an existing vault, or what the prompt names; ``None`` where nobody can be asked."""
        if self.given or self._read is not None:
            return self._given()
        return ask_hidden(prompt) if has_terminal() else None

    def get_new(self) -> Secret:
        """The passphrase for a new vault. Raises ``InvalidRequest`` where nobody can be asked."""
        if self.given:
            return self._given()
        if has_terminal():
            self._read = ask_new_passphrase()  # the vault that it makes is opened with it
            return self._read
        raise InvalidRequest(
            "a passphrase is needed and there is no terminal to ask on",
            "give --passphrase-file FILE or --passphrase-fd N",
        )

    def read_now(self) -> None:
        """Read what was named, before somebody else reads from the same place."""
        self._given()

    def _given(self) -> Secret:
        if self._read is None:
            self._read = _first_line(self.fd) if self.fd is not None else _file_line(self.file)
            if not len(self._read):
                raise InvalidRequest("the passphrase is empty", "its first line is what counts")
        return self._read


def _first_line(descriptor: int) -> Secret:
    """One line, byte by byte: what follows on the same descriptor belongs to somebody else."""
    line = bytearray()
    try:
        while len(line) <= _LINE and (byte := os.read(descriptor, 1)) not in {b"", b"\n"}:
            line += byte
    except OSError as error:
        raise InvalidRequest(
            f"--passphrase-fd {descriptor} cannot be read: {error.strerror}",
            f"open it in the shell: {descriptor}< FILE",
        ) from None
    return Secret(bytes(line).removesuffix(b"\r"))


def _file_line(path: str) -> Secret:
    try:
        with Path(path).open("rb") as file:
            return Secret(file.readline(_LINE).rstrip(b"\r\n"))
    except OSError as error:
        raise InvalidRequest(
            f"--passphrase-file {path} cannot be read: {error.strerror}", "check it, and KEYHOLE_PASSPHRASE_FILE"
        ) from None


def read_value(prompt: str, from_file: str = "", *, exact: bool = False) -> Secret:
    """A value: from a file, else hidden from a terminal, else all of stdin.

    Args:
        prompt: shown on a terminal.
        from_file: path; empty for stdin.
        exact: keep the one newline at the end that an editor or ``echo`` puts there.

    Raises:
        InvalidRequest: nothing was given, it is longer than any value may be, or the file cannot be read.
    """
    if from_file:
        try:
            with Path(from_file).open("rb") as file:
                content = _bounded(file)
        except OSError as error:
            raise InvalidRequest(f"{from_file} cannot be read: {error.strerror}", "check --from-file") from None
    elif sys.stdin is not None and sys.stdin.isatty():
        return _not_empty(ask_hidden(prompt))
    else:
        with contextlib.suppress(OSError):
            return _not_empty(_stripped(_bounded(sys.stdin.buffer), exact=exact))
        raise KeyholeError("stdin cannot be read", "pipe the value in, or give it with --from-file FILE")
    return _not_empty(_stripped(content, exact=exact))


def _bounded(stream: BinaryIO) -> bytes:
    """All of it. Raises ``InvalidRequest`` for one that has no end, before memory has none left."""
    content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise InvalidRequest(
            f"the value is longer than {LONGEST >> 20} MiB", "keep large files elsewhere, and their key here"
        )
    return content


def _stripped(content: bytes, *, exact: bool) -> Secret:
    if not exact and content.endswith(b"\n"):
        content = content[:-1].removesuffix(b"\r")
    return Secret(content)


def _not_empty(value: Secret) -> Secret:
    if not len(value):
        raise InvalidRequest("the value is empty", "type it, pipe it into stdin, or give --from-file")
    return value
