"""``agentsecrets env``, and how a command gets a port where there is none yet."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

import click

from keyhole.client.session import own_port
from keyhole.core.errors import InvalidRequest, KeyholeError

_FAILED = 125  # of keyhole run
_TOKEN = "_TOKEN"  # noqa: S105  # the end of a name, by which the SDK means an agent


def agent_of(token: str) -> str:
    """The agent that ``--token NAME_TOKEN`` means. Raises ``InvalidRequest`` for what may be a token itself."""
    if not token:
        return ""
    name = token.removesuffix(_TOKEN)
    if name == token or not name.replace("-", "").replace("_", "").isalnum():
        raise InvalidRequest("--token names an agent, as NAME_TOKEN", "no token stands in a command line")
    return name.lower()


def within(agent: str, command: list[str], *options: str) -> int:
    """Run a command as an agent in a session of its own; its exit code."""
    from keyhole.cli.entry import main  # noqa: PLC0415  # all of our own command line
    from keyhole.cli.granted import DEFAULT_AGENT  # noqa: PLC0415  # the same

    # The port is asked for: a command of ours that finds none would make a session in the session, and so on.
    run = ("run", "--agentsecrets-port", "0", "--agent", agent or DEFAULT_AGENT)
    return main(["-q", *options, *run, "--", *command])


def within_or_why_not(agent: str, command: list[str]) -> tuple[int, str]:
    """The same, and why the command could not even be begun, for the caller to say; else an empty text."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):  # ours alone: the command has the descriptor itself
        code = within(agent, command, "--json")
    if code == _FAILED:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            error = json.loads(said.getvalue())["error"]
            return code, f"{error['reason']} ({error['hint']})" if error["hint"] else error["reason"]
    click.echo(said.getvalue(), err=True, nl=False)
    return code, ""


def again() -> list[str]:
    """This very command line."""
    return [sys.executable, "-m", "keyhole.cli.agentsecrets", *sys.argv[1:]]


@click.command("env", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENTS]…")
def env(command: tuple[str, ...]) -> int:
    """Run a command that finds placeholders in its environment, and whose calls get the keys on their way."""
    if own_port() is None:
        return within("", list(command))
    sys.stdout.flush()
    try:
        os.execvp(command[0], list(command))  # noqa: S606  # the environment is that of this command already
    except OSError as error:
        raise KeyholeError(f"{command[0]}: {error.strerror}") from None
