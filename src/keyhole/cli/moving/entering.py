"""The verbs that bring secrets in: one for each format, alike for a vault with services and for a repo vault."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Command, Session, pass_session
from keyhole.cli.bindings import ensure_vault
from keyhole.cli.consent import ask_hidden, has_terminal
from keyhole.cli.import_sources import read_file
from keyhole.cli.moving import kv
from keyhole.cli.moving.batch import Batch
from keyhole.cli.moving.flow import Wanted, move
from keyhole.cli.moving.reading import Given, from_file, from_repo
from keyhole.cli.moving.sinks import Sink, VaultSink
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_path
from keyhole.core.value import Secret
from keyhole.process import harden_process

OF_MANAGERS = {
    "sops": "A file of sops (YAML, JSON, dotenv, INI, binary) that is sealed for age; its MAC is verified first.",
    "agenticmail": "Envelopes of AgenticMail's SecureVault: one, a configuration, or rows of vault_entries as JSON.",
    "1password": "An export of 1Password: .1pux, or CSV.",
    "bitwarden": "An export of Bitwarden: JSON, JSON with a password of its own, or CSV.",
    "doppler": "What doppler secrets download wrote: JSON or dotenv.",
}
FROM_REPO = "Another repo vault: a folder of the agent-vault format, with the key that opens it."
FROM_VAULT = "The KV engine of a running Vault, OpenBao or Keyhole, version 1 or 2, from PATH down."
_EXAMPLES = {
    "sops": "secrets.yaml --identity ~/.config/sops/age/keys.txt",
    "agenticmail": "rows.json --password-file key.txt",
    "1password": "export.1pux --dry-run",
    "bitwarden": "export.json --password-file password.txt",
    "doppler": "doppler.json",
}
GIVEN = "keyhole import options"
"""Key of the context below which the group keeps the options that stood before the verb."""
_OF_FILES = ("placeholders", "helpers", "agent")
Options = dict[str, Any]
Opener = Callable[[Session, Options], Sink]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def to_vault(session: Session, options: Options) -> Sink:
    """The vault that the command line means, made where there is none."""
    if not options["dry_run"]:
        harden_process()
        ensure_vault(session)
    return VaultSink(session, over=options["replace"], dry=options["dry_run"])


def nothing_more(function: Callable[..., Any]) -> Callable[..., Any]:
    """For a sink that has no options of its own."""
    return function


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every import."""
    for option in (
        click.option("--note-only", is_flag=True, help="Only say which values others may have seen: mark none as due."),
        click.option("--dry-run", is_flag=True, help="Only say what would be taken."),
        click.option("--replace", is_flag=True, help="Put a new value over a secret that has another."),
        click.option("--under", default="", metavar="NAME", help="First part of all names."),
        click.option("--skip", multiple=True, metavar="GLOB", help="Leave these; may be repeated."),
        click.option("--name", "names", multiple=True, metavar="GLOB", help="Take these too; may be repeated."),
    ):
        function = option(function)
    return function


def of_vault(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a running server."""
    for option in (
        click.option("--cacert", default="", metavar="FILE", help="CA that alone proves the server."),
        click.option("--kv", "kv_version", type=click.Choice(["1", "2"]), default=None, help="Version; else asked."),
        click.option("--mount", default="secret", metavar="PATH", help="Where the KV engine is; secret unless said."),
        click.option("--namespace", default="", metavar="NAME", help="Namespace there."),
        click.option("--token-file", default="", metavar="FILE", help="With a token of that server; else asked for."),
        click.option("--from-env", is_flag=True, help="Let VAULT_ADDR, VAULT_TOKEN and VAULT_NAMESPACE say it."),
        click.option("--address", default="", metavar="URL", help="https://HOST[:PORT] of the server."),
    ):
        function = option(function)
    return function


def server_of(given: Options) -> kv.Server:
    """The server that these options name. Raises ``InvalidRequest``, ``NotFound``."""
    environ = os.environ if given["from_env"] else {}
    address = given["address"] or environ.get("VAULT_ADDR", "")
    if not address:
        raise InvalidRequest("no server is named", "--address URL; or --from-env, to let VAULT_ADDR count")
    if given["token_file"]:
        token = Secret(_line(given["token_file"]))
    elif environ.get("VAULT_TOKEN"):
        token = Secret(environ["VAULT_TOKEN"])
    elif has_terminal():
        token = ask_hidden(f"Token for {address}: ")
    else:
        raise NotFound("there is no token for that server", "--token-file FILE; or --from-env, for VAULT_TOKEN")
    ca_pem = read_file(Path(given["cacert"]))[0].decode(errors="replace") if given["cacert"] else ""
    namespace = given["namespace"] or environ.get("VAULT_NAMESPACE", "")
    return kv.Server(address, token, namespace, given["mount"], int(given["kv_version"] or 0), ca_pem)


def _line(path: str) -> bytes:
    return read_file(Path(path).expanduser())[0].split(b"\n", 1)[0].strip()


def commands(noun: str, opener: Opener, also: Decorator, kinds: tuple[str, ...] = ()) -> list[Command]:
    """A command for each format.

    Args:
        noun: the words before the format, for examples.
        opener: makes the sink.
        also: options that the sink has besides.
        kinds: of plain files that are taken besides, by the name of their importer.
    """
    made = [_file_command(noun, kind, text, opener, also) for kind, text in OF_MANAGERS.items()]
    made += [_file_command(noun, kind, f"A file that {noun} {kind} reads.", opener, also) for kind in kinds]
    return [*made, _repo_command(noun, opener, also), _vault_command(noun, opener, also)]


def _made(function: Callable[..., Any], name: str, text: str, example: str, also: Decorator) -> Command:
    decorated = common(also(function))
    return click.command(name, cls=Command, examples=example, help=f"{text}\n\n{_TOLD}")(pass_session(decorated))


_TOLD = "Says what it took, what it left and why, and which values others may have seen; never a value."


def _with_those_before(options: Options) -> Options:
    """With what stood before the format: ``keyhole import --dry-run sops FILE``."""
    before = click.get_current_context().meta.get(GIVEN, {})
    if useless := [word for word in _OF_FILES if before.get(word)]:
        raise InvalidRequest(
            f"--{useless[0].replace('_', '-')} is for files of programs, and this is another manager's",
            "leave it out; keyhole import --help",
        )
    return {name: value or before.get(name, value) for name, value in options.items()}


def _run(session: Session, options: Options, batch: Batch, opener: Opener) -> int:
    sink = opener(session, options)
    wanted = Wanted(tuple(options["names"]), tuple(options["skip"]), options["note_only"])
    return move(session, batch, sink, wanted)


def _under(options: Options) -> str:
    return parse_path(options["under"]) if options["under"] else ""


def _file_command(noun: str, kind: str, text: str, opener: Opener, also: Decorator) -> Command:
    def run(session: Session, /, *, file: str, **options: Any) -> int:
        options = _with_those_before(options)
        given = Given(options.pop("identities", ()), options.pop("password_file", ""), _under(options))
        return _run(session, options, from_file(kind, Path(file).expanduser(), given), opener)

    function: Callable[..., Any] = click.argument("file", metavar="FILE")(run)
    if kind == "sops":
        option = click.option(
            "--identity", "identities", multiple=True, metavar="FILE", help="Age key; else that of sops. Repeatable."
        )
        function = option(function)
    elif kind in {"bitwarden", "agenticmail"}:
        hint = "Password of the file, in its first line; else asked for."
        function = click.option("--password-file", default="", metavar="FILE", help=hint)(function)
    return _made(function, kind, text, f"{noun} {kind} {_EXAMPLES.get(kind, 'FILE --dry-run')}", also)


def _repo_command(noun: str, opener: Opener, also: Decorator) -> Command:
    @click.argument("folder", metavar="DIR")
    @click.option("--from-key", default="", metavar="FILE", help="The key that opens it; else as for --key of repo.")
    def run(session: Session, /, *, folder: str, from_key: str, **options: Any) -> int:
        options = _with_those_before(options)
        batch = from_repo(session, Path(folder).expanduser(), from_key, Given(under=_under(options)))
        return _run(session, options, batch, opener)

    return _made(run, "agent-vault", FROM_REPO, f"{noun} agent-vault ~/team --from-key agent.key", also)


def _vault_command(noun: str, opener: Opener, also: Decorator) -> Command:
    @click.argument("path", default="", metavar="[PATH]")
    @of_vault
    def run(session: Session, /, *, path: str, **options: Any) -> int:
        options = _with_those_before(options)
        batch = kv.read(server_of(options), parse_path(path) if path else "")
        under = _under(options)
        batch.found = [kv.named_under(found, under) for found in batch.found] if under else batch.found
        return _run(session, options, batch, opener)

    example = f"{noun} vault --address https://vault.example:8200 --token-file token --mount secret shop"
    return _made(run, "vault", FROM_VAULT, example, also)
