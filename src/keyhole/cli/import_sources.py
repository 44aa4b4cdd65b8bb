"""Where ``import`` gets bytes from: files, the environment, and commands that print a token."""

from __future__ import annotations

import fnmatch
import os
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, UpstreamTimeout
from keyhole.importers import LIMITS, MEMBERS, Origin, Report, importer_for, load

_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_EXAMPLES = (".example", ".sample", ".template", ".dist", ".defaults")


@dataclass(frozen=True, slots=True)
class Source:
    """Something that was read.

    Attributes:
        kind: name of the importer.
        label: for a person.
        report: what is in it.
        path: of the file; ``None`` for what is none.
        content: of the file.
        status: of the file when it was read.
    """

    kind: str
    label: str
    report: Report
    path: Path | None = None
    content: bytes = field(default=b"", repr=False)
    status: os.stat_result | None = None

    @property
    def exposed(self) -> bool:
        """Can others on this machine read the file?"""
        return os.name == "posix" and self.status is not None and bool(self.status.st_mode & _OTHERS_READ)


def read_file(path: Path) -> tuple[bytes, os.stat_result]:
    """A file's content, and its status at that time.

    Raises:
        NotFound: there is none.
        InvalidRequest: it is no regular file, too large, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)  # a pipe must not keep us waiting
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidRequest(f"{path} is not a regular file", "name a file")
            content = file.read(LIMITS.file + 1)
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {path}", "check its name; keyhole import without arguments looks for some"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name has a NUL byte"
        raise InvalidRequest(f"{path} cannot be read: {reason}", "check its name and permissions") from None
    if len(content) > LIMITS.file:
        raise InvalidRequest(f"{path} is larger than {LIMITS.file // 2**20} MiB", "import what is in it by hand")
    return content, status


def from_file(path: Path, kind: str = "") -> Source:
    """Read a file with the importer of its kind, which its name tells unless it is given.

    Raises:
        InvalidRequest: its kind is not known, or it is not of that kind.
    """
    kind = kind or importer_for(str(path.absolute()))
    if not kind:
        raise InvalidRequest(f"the name of {path} does not say what it is", f"add --kind: {', '.join(file_kinds())}")
    content, status = read_file(path)
    folder = path.absolute().parent.name or "root"
    try:
        report = load(kind).parse(content, Origin(str(path), group=folder))
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.reason}", error.hint) from None
    return Source(kind, _short(path), report, path, content, status)


def from_environment() -> Source:
    """Read the environment of this process, but for our own settings."""
    items = (b"=".join((os.fsencode(k), os.fsencode(v))) for k, v in os.environ.items() if not k.startswith("KEYHOLE_"))
    report = load("environ").parse(b"\0".join(items), Origin("environment", group="env"))
    return Source("environ", "environment", report)


def from_command(argv: tuple[str, ...], group: str) -> Source:
    """Run a command and take what it prints, which nobody else sees.

    Raises:
        NotFound: there is no such program.
        KeyholeError: it failed, took too long, or printed something else than a token.
    """
    content = output(argv)
    report = load("command").parse(content, Origin(argv[0], group=group))
    return Source("command", Path(argv[0]).name, report)


def output(argv: tuple[str, ...], given: bytes = b"") -> bytes:
    """What a program prints, up to a limit of bytes and seconds.

    Raises:
        NotFound: there is no such program.
        KeyholeError: it failed or did not end.
        InvalidRequest: it printed too much.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KEYHOLE_", "VAULT_"))}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    name = Path(argv[0]).name
    try:
        process = subprocess.Popen(argv, env=environ, **streams)  # type: ignore[call-overload]  # noqa: S603  # the user names it
    except (OSError, ValueError):
        raise NotFound(
            f"the program {name!r} is not here, or cannot be started", "install it, or give its path"
        ) from None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(LIMITS.seconds, stop)
    timer.start()
    try:
        with process:
            try:
                process.stdin.write(given)
                process.stdin.close()
            except OSError:
                pass  # it does not read what it is told; what it prints decides
            printed: bytes = process.stdout.read(LIMITS.output + 1)
            if len(printed) > LIMITS.output:
                process.kill()
    finally:
        timer.cancel()
    if late.is_set():
        raise UpstreamTimeout(f"{name} did not end within {LIMITS.seconds:g} seconds", "run it by itself to see why")
    if len(printed) > LIMITS.output:
        raise InvalidRequest(f"{name} printed more than a token", "name a command that prints the token alone")
    if process.returncode:
        raise KeyholeError(f"{name} failed with exit code {process.returncode}", "run it by itself to see why")
    return printed


def usual_places(kinds: Iterable[str] = MEMBERS) -> Iterator[tuple[str, Path]]:
    """The kind and path of every file that is there, each file once."""
    seen: set[tuple[int, int]] = set()
    for kind in kinds:
        for place in load(kind).PLACES:
            for path in _expanded(place):
                try:
                    status = path.stat()
                except (OSError, ValueError):
                    continue
                if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield kind, path


def file_kinds() -> list[str]:
    """The importers that read files."""
    return [name for name in MEMBERS if load(name).PLACES]


def _expanded(place: str) -> list[Path]:
    """The paths that a usual place means here."""
    if place.startswith("$"):
        variable, slash, rest = place[1:].partition("/")
        folder = os.environ.get(variable, "")
        return [Path(folder, rest) if slash else Path(folder)] if folder else []
    if place.startswith("~/"):
        try:
            return [Path.home() / place[2:]]
        except RuntimeError:
            return []  # nobody knows where the home is
    path = Path(place)
    if "*" not in path.name:
        return [path]
    names = sorted(entry.name for entry in os.scandir(path.parent) if fnmatch.fnmatch(entry.name, path.name))
    return [path.with_name(name) for name in names if not name.endswith(_EXAMPLES)]


def _short(path: Path) -> str:
    """The path as people write it, with ``~`` for the home."""
    try:
        return f"~/{path.relative_to(Path.home())}" if path.is_absolute() else str(path)
    except (RuntimeError, ValueError):
        return str(path)
