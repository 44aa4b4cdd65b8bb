"""``leases run``: a command with a credential of its own in its environment or in a file, as long as it runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.run import ChildCommand
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.lease import parse_duration
from keyhole.faces.run.plan import OWN_FAILURE

if TYPE_CHECKING:
    from keyhole.client.leasing import Leased
    from keyhole.faces.run.output import Output
    from keyhole.scrub import Scrubber

_NOT_EXECUTABLE, _NOT_THERE = 126, 127
_LOOK = 0.5  # seconds between looks at a command that runs
_PATIENCE = 10.0  # seconds that a command has to end
_PASSED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_PLACE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LARGEST = 1024 * 1024
_SHOWN = frozenset({"username"})  # names an account, and opens none


@dataclass(slots=True)
class _Rendered:
    """Files with values in them, for their owner alone, which are removed at the end.

    Attributes:
        templates: destination to text with ``{{field}}``.
    """

    templates: Mapping[Path, str] = field(default_factory=dict)

    def write(self, values: Mapping[str, str]) -> None:
        """Put values in. Raises ``InvalidRequest`` for a field that there is not."""
        for path, template in self.templates.items():
            text = _PLACE.sub(lambda match: _value(values, match[1]), template)
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            fresh.replace(path)

    def remove(self) -> None:
        """Away with them."""
        for path in self.templates:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@click.command(
    "run",
    cls=ChildCommand,
    examples="""
    keyhole leases run --source /database/creds/reader --env PGUSER=username --env PGPASSWORD=password -- psql
    keyhole leases run --source /database/creds/app --file app.ini=app.ini.template -- ./app
    """,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("argv", nargs=-1, required=True, metavar="COMMAND [ARGUMENTS]…")
@click.option("--source", required=True, metavar="/PATH", help="What is read; it takes read.")
@click.option("--env", "variables", multiple=True, metavar="VARIABLE=FIELD", help="May be repeated.")
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="FILE=TEMPLATE",
    help="Written from a template with {{field}}, for you alone; removed at the end.",
)
@click.option(
    "--on-change",
    type=click.Choice(["end", "restart", "hup"]),
    help="What becomes of the command when another credential takes the place; end, or hup where only files have it.",
)
@click.option("--no-scrub", is_flag=True, help="Let the command print what it was given.")
@click.option("--grace", default="1m", show_default=True, help="How long it may go on while no server answers.")
@pass_session
def run_leased(
    session: Session,
    /,
    *,
    argv: tuple[str, ...],
    source: str,
    variables: tuple[str, ...],
    files: tuple[str, ...],
    on_change: str | None,
    no_scrub: bool,
    grace: str,
) -> int:
    """Run a command that holds a credential made for it, which is renewed meanwhile and taken back when it ends.

    The command has the real value, so this takes read on the source; run is the way without. What it prints is scrubbed
    of what it was given, but for user names. The exit code is the command's own; 125 when we failed or the credential
    ended, 126 when it cannot be executed, 127 when it is not there.
    """
    try:
        named = _variables(variables)
        rendered = _Rendered(_templates(files))
        if not named and not rendered.templates:
            raise InvalidRequest("the command would get nothing", "say --env VARIABLE=FIELD or --file FILE=TEMPLATE")
        how = on_change or ("end" if named else "hup")
        with session.client.lease(source, grace=parse_duration(grace, name="--grace")) as creds:
            try:
                return _run(session, argv, creds, named, rendered, how, _Clean(enabled=not no_scrub))
            finally:
                rendered.remove()
    except KeyholeError as error:
        session.out.error(error)
        return OWN_FAILURE


class _Clean:
    """Takes what the command was given out of what it prints, also what was given before.

    Args:
        enabled: else it may print everything.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled and sys.platform != "win32"
        self._known: set[bytes] = set()
        self._output: Output | None = None

    @contextlib.contextmanager
    def output(self) -> Iterator[tuple[int | None, int | None]]:
        """Where the command's stdout and stderr lead; ``None`` for where ours do."""
        if not self._enabled:
            yield None, None
            return
        from keyhole.faces.run.output import Output  # noqa: PLC0415  # POSIX only

        with Output(self._scrubber(), session=False) as output:
            self._output = output
            before = signal.signal(signal.SIGWINCH, lambda *_: output.resize())
            try:
                yield output.stdout, output.stderr
            finally:
                signal.signal(signal.SIGWINCH, before)
                self._output = None

    def add(self, values: Mapping[str, str]) -> None:
        """The command is about to be given these."""
        self._known |= {value.encode() for name, value in values.items() if name not in _SHOWN}
        if self._output is not None:
            self._output.know(self._scrubber())

    def _scrubber(self) -> Scrubber:
        from keyhole.scrub import Scrubber  # noqa: PLC0415  # slow to load

        return Scrubber.compile(self._known)


def _run(
    session: Session,
    argv: tuple[str, ...],
    creds: Leased,
    named: Mapping[str, str],
    files: _Rendered,
    how: str,
    clean: _Clean,
) -> int:
    while True:
        version, values = creds.version, creds.fields()
        environment = {variable: _value(values, name) for variable, name in named.items()}
        clean.add(values)
        files.write(values)
        with clean.output() as (stdout, stderr):
            try:
                child = subprocess.Popen(argv, env=_own() | environment, stdout=stdout, stderr=stderr)  # noqa: S603  # so asked
            except OSError as error:
                session.out.error(InvalidRequest(f"{argv[0]} cannot be executed: {error.strerror}", "check its name"))
                return _NOT_THERE if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
            with _signals_to(child):
                code = _watch(session, child, creds, version, files, how, clean)
        if code is not None:
            return code


def _watch(
    session: Session,
    child: subprocess.Popen[bytes],
    creds: Leased,
    version: int,
    files: _Rendered,
    how: str,
    clean: _Clean,
) -> int | None:
    """The exit code once the command has ended; ``None`` when it is to be started again."""
    while True:
        try:
            code = child.wait(_LOOK)
        except subprocess.TimeoutExpired:
            pass
        else:
            return code if code >= 0 else 128 - code
        if creds.remaining <= 0:
            _end(child)
            creds.fields()  # raises what there is to say
        if creds.version == version:
            continue
        if how == "hup":
            version, values = creds.version, creds.fields()
            clean.add(values)
            files.write(values)
            child.send_signal(getattr(signal, "SIGHUP", signal.SIGTERM))
            continue
        becomes = "started again" if how == "restart" else "ended"
        session.out.say(f"keyhole: another credential took the place; the command is {becomes}")
        _end(child)
        return None if how == "restart" else OWN_FAILURE


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass signals on. What a terminal sends, the command gets by itself."""

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            child.send_signal(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for name in _PASSED:
        number = getattr(signal, name, None)
        if number is not None:
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _own() -> dict[str, str]:
    """This environment without what opens the vault."""
    return {
        name: text for name, text in os.environ.items() if not name.startswith("KEYHOLE_") and name != "VAULT_TOKEN"
    }


def _value(values: Mapping[str, str], name: str) -> str:
    if name not in values:
        raise InvalidRequest(f"the source has no field {name!r}", f"it has {', '.join(sorted(values))}")
    if "\0" in values[name]:
        raise InvalidRequest(f"the field {name!r} has a NUL, which no environment can have", "use --file")
    return values[name]


def _variables(said: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in said:
        variable, sign, name = each.partition("=")
        if not sign or not name or not _VARIABLE.fullmatch(variable):
            raise InvalidRequest("--env is VARIABLE=FIELD", "for example PGPASSWORD=password")
        found[variable] = name
    return found


def _templates(said: tuple[str, ...]) -> dict[Path, str]:
    found = {}
    for each in said:
        target, sign, source = each.partition("=")
        if not sign or not target or not source:
            raise InvalidRequest("--file is FILE=TEMPLATE", "for example app.ini=app.ini.template")
        path = Path(target).absolute()
        if path.exists() or not path.parent.is_dir():
            raise InvalidRequest(f"{target} is there already, or its folder is not", "name a new file")
        try:
            with Path(source).open(encoding="utf-8") as file:
                text = file.read(_LARGEST + 1)
        except (OSError, UnicodeDecodeError):
            raise InvalidRequest(f"the template {source} cannot be read", "check --file") from None
        if len(text) > _LARGEST:
            raise InvalidRequest(f"the template {source} is larger than {_LARGEST:,} characters", "divide it")
        found[path] = text
    return found
