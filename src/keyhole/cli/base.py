"""What every command has: the session, the options that count before and after its name, and examples in its help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keyhole.cli.consent import PassphraseSource, has_terminal
from keyhole.cli.output import Output
from keyhole.core.errors import KeyholeError, NotFound

if TYPE_CHECKING:
    from keyhole.cli.local import LocalVault
    from keyhole.client import Client, Where

PROG = "keyhole"
F = TypeVar("F", bound=Callable[..., Any])
_REFUSALS = 20  # of a listener, that are said on stderr
_FOOTER = "Options of every command: --json -q --vault --org --passphrase-file … (keyhole --help)"


class Session:
    """One run of the command line.

    Attributes:
        out: where it speaks.
        vault: what ``--vault`` said.
        org: what ``--org`` said.
        vault_env: ``VAULT_ADDR`` and ``VAULT_TOKEN`` count.
        asks: somebody at a terminal may be asked.
        passphrase: where the passphrase comes from.

    Args:
        json: answers are JSON.
        program: the process is there for this command alone.
    """

    def __init__(self, *, json: bool = False, program: bool = False) -> None:
        self.out = Output(json=json)
        self._program = program
        self.vault = ""
        self.org = ""
        self.vault_env = False
        self.asks = True
        self.passphrase = PassphraseSource()
        self._where: Where | None = None
        self._client: Client | None = None
        self.local: LocalVault | None = None
        self._refused = 0

    def pin_code(self) -> None:
        """Load code from where it is now, since commands may run beside it; not in a program that calls ours."""
        if self._program and sys.platform == "linux":
            from keyhole.process.pinned import pin_code  # noqa: PLC0415  # --help needs none

            pin_code()

    @property
    def where(self) -> Where:
        """Which vault is meant. Raises ``InvalidRequest``."""
        if self._where is None:
            from keyhole.client import discover  # noqa: PLC0415  # --help needs no client

            self._where = discover(self.vault, vault_env=self.vault_env)
        return self._where

    @property
    def client(self) -> Client:
        """The vault, to be asked. It is opened by the first request."""
        if self._client is None:
            from keyhole.client import Client, connect  # noqa: PLC0415  # the same

            transport = connect(self.where, org=self.org, opener=self._open)
            self._client = Client(transport=transport)
        return self._client

    def _open(self, where: Where) -> LocalVault:
        from keyhole.cli.local import LocalVault  # noqa: PLC0415  # a client of a server opens no vault

        self.local = LocalVault(
            where.location, passphrase=self.passphrase.get, interactive=self.asks and has_terminal()
        )
        return self.local

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record a refusal of a listener of ours in the journal of the local vault.

        A server takes no word of others on what they have refused, so that is said on stderr.
        """
        if self.local is not None:
            self.local.note_refusal(error, remote)
        elif self._refused < _REFUSALS:
            self._refused += 1
            last = "; further ones are not shown" if self._refused == _REFUSALS else ""
            self.out.warn(f"refused a request from {remote}: {error.reason}{last}")

    def names(self, path: str) -> list[str]:
        """The names below an API path, none where nothing is there. Raises ``NotFound`` where there is no vault."""
        try:
            return [str(name) for name in self.client.list(path).data["keys"]]
        except NotFound:
            if self.local is not None and not self.local.is_open:
                raise
            return []

    def close(self) -> None:
        """Let the vault go."""
        if self._client is not None:
            self._client.close()


pass_session = click.make_pass_decorator(Session)


def _stored(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that keeps an option's value in the session; the later of two wins."""

    def keep(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        session = context.find_object(Session)
        if session is None or value is None or value is False or value == "":  # file descriptor 0 is one
            return
        if name in {"json", "quiet"}:
            setattr(session.out, name, value)
        elif name in {"fd", "file"}:
            setattr(session.passphrase, name, value)
            if name == "fd" and value == 0 and not context.resilient_parsing:
                session.passphrase.read_now()  # what follows on stdin is for the command
        else:
            setattr(session, name, value)

    return keep


def shared_options(*, hidden: bool) -> list[click.Option]:
    """The options of every command."""

    def option(*words: str, to: str, **attributes: Any) -> click.Option:
        return click.Option(words, expose_value=False, hidden=hidden, callback=_stored(to), **attributes)

    return [
        option("--json", to="json", is_flag=True, help="Results and errors as JSON."),
        option("-q", "--quiet", to="quiet", is_flag=True, help="No messages but errors."),
        option(
            "--vault",
            to="vault",
            metavar="URL",
            help="sqlite:PATH, postgres:URL or https:URL. Else KEYHOLE_VAULT.",
        ),
        option("--org", to="org", metavar="ORG", help="The org where to ask; else the token's own."),
        option("--vault-env", to="vault_env", is_flag=True, help="Let VAULT_ADDR and VAULT_TOKEN count."),
        option("--passphrase-fd", to="fd", type=int, metavar="N", help="Read the passphrase from a file descriptor."),
        option(
            "--passphrase-file",
            to="file",
            metavar="FILE",
            envvar="KEYHOLE_PASSPHRASE_FILE",
            help="Read the passphrase from the first line of a file.",
        ),
    ]


class _Shared:
    """Mixed into commands and groups: shared options, examples, and refusals that never repeat what was typed."""

    examples: str
    params: list[click.Parameter]

    def share(self, examples: str) -> None:
        """Take the shared options and the examples. A command's own option of the same name wins."""
        self.examples = examples
        own = {word for parameter in self.params for word in (*parameter.opts, *parameter.secondary_opts)}
        self.params.extend(option for option in shared_options(hidden=True) if own.isdisjoint(option.opts))

    def format_epilog(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples as they are typed, then a word about the options of every command."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"  {line.strip()}\n")
        formatter.write(f"\n{_FOOTER}\n")


class Command(_Shared, click.Command):
    """A command with examples."""

    def __init__(self, *args: Any, examples: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.share(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse extra arguments without repeating them: one of them may be a value that slipped in."""
        strict, ctx.allow_extra_args = not ctx.allow_extra_args, True
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # the parser does not say whose option it was
            raise
        if strict and rest and not ctx.resilient_parsing:
            raise click.UsageError(
                f"{len(rest)} unexpected extra argument{'s' if len(rest) > 1 else ''} (not shown, it may be a secret)",
                ctx,
            )
        return rest


class Group(_Shared, click.Group):
    """A noun with its verbs."""

    command_class = Command

    def __init__(self, *args: Any, examples: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.share(examples)


def command(name: str, *, examples: str, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function. Its docstring is the help; ``examples`` has one a line."""
    return click.command(name, cls=Command, examples=examples, **attributes)


def group(name: str, *, examples: str, **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a noun of a function; add verbs with ``@noun.command("verb", examples=…)``."""
    return click.group(name, cls=Group, examples=examples, **attributes)


def interruptions() -> tuple[type[BaseException], ...]:
    """What Ctrl-C comes as: also as cancelling, where the signal comes just as asyncio begins to run something."""
    from asyncio import CancelledError  # noqa: PLC0415  # few commands are interrupted

    return KeyboardInterrupt, click.Abort, CancelledError
