"""``import``: credentials moved into the vault from where they lie, and placeholders left in their place."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.cli.base import Group, Session, pass_session
from keyhole.cli.consent import ask_yes, has_terminal
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.import_files import FOLDER, put_back, read_copy
from keyhole.cli.import_sources import file_kinds, from_command, from_environment, usual_places
from keyhole.cli.import_work import Options, Work
from keyhole.cli.moving.entering import GIVEN, commands, nothing_more, to_vault
from keyhole.core.errors import Conflict, InvalidRequest, NotFound, PolicyDenied
from keyhole.core.path import parse_name, parse_path
from keyhole.importers import MANAGERS, MEMBERS
from keyhole.importers.command import KNOWN

F = TypeVar("F", bound=Callable[..., Any])
_FILE = "file"


class _Import(Group):
    """A word that is no verb is a file, or the name of a source."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """``keyhole import .env`` is ``keyhole import file .env``."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return _FILE, self.commands[_FILE], args


def _read(given: dict[str, Any]) -> Options:
    """The options of a command, with those that stood before its name."""
    before = click.get_current_context().meta.get(GIVEN, {})
    merged = {name: value or before.get(name, value) for name, value in given.items()}
    options = Options(**{name: value for name, value in merged.items() if value})
    options.agent = parse_name(options.agent or DEFAULT_AGENT)
    options.under = parse_path(options.under) if options.under else ""
    return options


def _options(function: F) -> F:
    for option in reversed(
        (
            click.option("--name", "names", multiple=True, metavar="GLOB", help="Take these too; may be repeated."),
            click.option("--skip", multiple=True, metavar="GLOB", help="Leave these; may be repeated."),
            click.option("--under", metavar="NAME", default="", help="First part of the names of what nobody knows."),
            click.option(
                "--agent", metavar="AGENT", default="", help=f"Who may use them; {DEFAULT_AGENT} unless said."
            ),
            click.option("--no-services", is_flag=True, help="Store only: make no services and grant nothing."),
            click.option("--replace", is_flag=True, help="Put a new version over a secret with another value."),
            click.option(
                "--placeholders", is_flag=True, help="Leave placeholders in the file; the vault keeps a copy."
            ),
            click.option("--helpers", is_flag=True, help="Ask the credential helpers that Docker's file names."),
            click.option("--dry-run", is_flag=True, help="Only say what would be taken."),
            click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        )
    ):
        function = option(function)
    return function


@click.group(
    "import",
    cls=_Import,
    invoke_without_command=True,
    subcommand_metavar="[FILE | SOURCE | VERB]…",
    examples="""
    keyhole import                               # looks around, says what it would take, and asks
    keyhole import .env --placeholders           # the keys move into the vault, placeholders stay
    keyhole import aws npmrc --dry-run
    keyhole import env --name 'ACME_*'
    keyhole import command gh
    keyhole import bitwarden export.json
    keyhole import restore
    """,
)
@_options
@pass_session
@click.pass_context
def import_command(context: click.Context, session: Session, /, **given: Any) -> int | None:
    """Move credentials into the vault from where they lie, bind what is known to its hosts, and let an agent use it.

    FILE is a .env file, .npmrc, pip.conf, .netrc, AWS's credentials, Docker's config.json, .git-credentials or a
    configuration of MCP servers; SOURCE is the name of such a kind, for the places where it usually lies. Without
    either it looks at all of them. Values are neither shown nor expanded, and nothing in the vault is overwritten.
    """
    if context.invoked_subcommand is not None:
        context.meta[GIVEN] = given
        return None

    options = _read(given)
    work = Work(session, options)
    for kind, path in usual_places():
        work.read_file(path, kind, required=False)
    work.add(from_environment())
    return work.finish(ask=True)


@import_command.command(
    _FILE,
    examples="""
    keyhole import file .env .env.local
    keyhole import file settings.txt --kind dotenv
    keyhole import file ~/.npmrc --placeholders
    """,
)
@click.argument("words", nargs=-1, required=True, metavar="FILE|SOURCE…")
@click.option(
    "--kind",
    type=click.Choice([each for each in MEMBERS if each not in MANAGERS]),
    default=None,
    help="What the file is; its name says it else.",
)
@_options
@pass_session
def file_command(session: Session, /, *, words: tuple[str, ...], kind: str | None, **given: Any) -> int:
    """Import files, or the usual places of a source. The word file may be left out."""
    work = Work(session, _read(given))
    kinds = file_kinds()
    for word in words:
        if word in kinds and not kind:
            places = list(usual_places([word]))
            if not places:
                work.notes.append(f"{word}: there is nothing in the usual places; name the file")
            for found, path in places:
                work.read_file(path, found)
        else:
            work.read_file(_there(word), kind or "")
    return work.finish()


def _there(word: str) -> Path:
    """The file that a word names. What names none is not repeated: it may be a value that slipped in."""
    path = Path(word).expanduser()
    try:
        found = path.exists()
    except (OSError, ValueError):
        found = False
    if not found:
        raise NotFound(
            "there is no file, and no source, of a name that you gave",
            f"a file, or one of {', '.join(file_kinds())}; keyhole import alone looks around",
        )
    return path


@import_command.command("env", examples="keyhole import env\nkeyhole import env --name 'ACME_*' --dry-run")
@_options
@pass_session
def env_command(session: Session, /, **given: Any) -> int:
    """Import variables of the environment: those that the catalog knows, and those that --name names; never all."""
    work = Work(session, _read(given))
    work.add(from_environment())
    return work.finish()


@import_command.command(
    "command",
    examples="""
    keyhole import command gh                    # one that is known by name
    keyhole import command --as github/token -- gh auth token
    keyhole import command --as crm/token -- op read op://team/crm/token
    """,
)
@click.argument("argv", nargs=-1, metavar="NAME | -- COMMAND [ARGUMENTS]…")
@click.option("--as", "secret", metavar="SECRET", default="", help="Name of the secret.")
@_options
@pass_session
def command_command(session: Session, /, *, argv: tuple[str, ...], **given: Any) -> int:
    """Run a command that prints a token, and store the token. What it prints is read by us and never shown.

    Without a command it lists those that are known by name.
    """
    if not argv:
        known = [{"name": name, "command": " ".join(each.argv)} for name, each in KNOWN.items()]
        session.out.table(known, ("name", "command"), [tuple(each.values()) for each in known])
        return 0
    options = _read(given)
    if options.placeholders:
        raise InvalidRequest("a command has no file to put placeholders into", "leave --placeholders out")
    options.secret = parse_path(options.secret) if options.secret else ""
    name = argv[0] if len(argv) == 1 else ""
    known_argv = KNOWN[name].argv if name in KNOWN else argv
    group = next((key for key, each in KNOWN.items() if each.argv == known_argv), Path(argv[0]).name)
    work = Work(session, options)
    work.add(from_command(known_argv, group))
    return work.finish()


@import_command.command(
    "restore", examples="keyhole import restore\nkeyhole import restore shop-.env-20260101T120000Z --to .env.old"
)
@click.argument("name", default="")
@click.option("--to", metavar="FILE", default="", help="Write it there instead of where it was.")
@click.option("--replace", is_flag=True, help="Although the file has changed since.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def restore_command(session: Session, /, *, name: str, to: str, replace: bool, yes: bool) -> None:
    """Put a file back as it was before its values were replaced: they are in clear in it again. Needs read.

    Without a name it lists the copies that the vault keeps.
    """
    if not name:
        names = session.names(f"secret/metadata/{FOLDER}")
        session.out.table([{"name": each} for each in names], ("name",), [(each,) for each in names], empty="no copies")
        return
    copy = read_copy(session, name)
    if not to and copy.host != platform.node():
        raise Conflict(f"that file was on another machine, {copy.host}", "say where to write it: --to FILE")
    path = Path(to).expanduser() if to else copy.path
    if not yes and has_terminal() and not ask_yes(f"Write the values into {path} again?"):
        raise PolicyDenied("nothing is written", "answer y, or add --yes")
    changed = put_back(copy, path, over=replace)
    message = f"{path} is as it was; its values are in it again" if changed else f"{path} is as it was already"
    session.out.done({"name": copy.name, "path": str(path), "changed": changed}, message)


for each in commands("keyhole import", to_vault, nothing_more):
    import_command.add_command(each)
