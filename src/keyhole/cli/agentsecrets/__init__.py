"""The command ``agentsecrets``: what the SDK of that name (version 3) calls, on top of ours.

Within a command of ``keyhole run`` it speaks with the port of that command, and needs no vault. Elsewhere it starts one
for itself, or asks the vault as ``keyhole`` does. A value is neither taken in a command line nor printed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from keyhole import __version__
from keyhole.cli.agentsecrets.call import call
from keyhole.cli.agentsecrets.kept import secrets
from keyhole.cli.agentsecrets.proxy import proxy, status
from keyhole.cli.agentsecrets.spawned import env
from keyhole.cli.agentsecrets.teams import agent, environment, project, refused, workspace
from keyhole.cli.base import Session, interruptions
from keyhole.core.errors import KeyholeError

_PROG = "agentsecrets"


@click.group(_PROG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=_PROG)
def program_group() -> None:
    """Calls with secrets that nobody sees, for programs that were written for AgentSecrets."""


for each in (call, env, status, secrets, proxy, workspace, project, agent, environment):
    program_group.add_command(each)


for _verb, _hint in (
    ("init", "keyhole init, and keyhole add NAME"),
    ("login", "keyhole login for a server; a vault of this machine needs none"),
    ("logout", "keyhole logout"),
    ("mcp", "keyhole mcp serve, keyhole mcp install"),
    ("exec", "no value is printed: keyhole run -- COMMAND, or keyhole get NAME --reveal for who may read it"),
):
    refused(program_group, _verb, _hint)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, the child's own, 1 for every failure, 2 for a wrong command line."""
    run: Callable[..., Any] = program_group.main
    session = Session()
    session.passphrase.file = os.environ.get("KEYHOLE_PASSPHRASE_FILE", "")
    try:
        return int(run(arguments, prog_name=_PROG, standalone_mode=False, obj=session) or 0)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.UsageError as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        return 2
    except KeyholeError as error:
        click.echo(f"Error: {error.reason}{f' ({error.hint})' if error.hint else ''}", err=True)
    except interruptions():
        click.echo("Error: stopped", err=True)
    finally:
        session.close()
    return 1


def program() -> None:
    """The program ``agentsecrets``."""
    sys.exit(main())
