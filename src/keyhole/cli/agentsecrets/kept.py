"""``agentsecrets secrets``: the names of what the agent may use. Values are given to the vault by our own commands."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.client.session import own_port
from keyhole.core.errors import InvalidRequest, NotFound


def listed(session: Session) -> list[dict[str, Any]]:
    """Each secret: its name (``key``), the hosts where it may go (``domains``), and its other ``names``."""
    port = own_port()
    if port is not None:
        return list(port.get("/secrets")["secrets"])
    from keyhole.cli.granted import DEFAULT_AGENT, bindings  # noqa: PLC0415  # within a session nothing of the vault is needed
    from keyhole.core.service import Service  # noqa: PLC0415  # the same
    from keyhole.faces.run.agentsecrets.names import listing  # noqa: PLC0415  # the same

    return listing(Service.from_data(name, data) for name, data in bindings(session.client, DEFAULT_AGENT).items())


def names_of(session: Session, key: str) -> set[str]:
    """All names of what a call would mean by this one; empty where that is nothing."""
    from keyhole.faces.run.agentsecrets.names import normal  # noqa: PLC0415  # few commands ask for one

    named = [{item["key"], *item["names"]} for item in listed(session)]
    return set().union(*(names for names in named if key in names or normal(key) in names))


@click.group("secrets")
def secrets() -> None:
    """Names of secrets."""


@secrets.command("list")
@pass_session
def list_secrets(session: Session) -> None:
    """The names, one a line."""
    for item in listed(session):
        click.echo(item["key"])


@secrets.command("get")
@click.argument("key")
@pass_session
def get(session: Session, key: str) -> None:
    """The name again, if there is such a secret; never its value."""
    if not names_of(session, key):
        raise NotFound(f"secret '{key}' not found in keychain", "agentsecrets secrets list")
    click.echo(key)


@secrets.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("_pairs", nargs=-1, type=click.UNPROCESSED, metavar="KEY=VALUE")
def put(_pairs: tuple[str, ...]) -> None:
    """Refused: others can see a command line, and the shell remembers it."""
    raise InvalidRequest("a value does not stand in a command line", "keyhole add NAME, or keyhole set NAME < FILE")


@secrets.command("delete")
@click.argument("_key")
def delete(_key: str) -> None:
    """Refused: a secret is deleted where it is kept."""
    raise InvalidRequest("secrets are deleted in the vault", "keyhole rm NAME")


@secrets.command("diff")
def diff() -> None:
    """Nothing can differ: there is one place for values."""
    click.echo("Everything is in sync: values are in the vault alone")


@secrets.command("pull")
@click.option("-f", "--force", "_force", is_flag=True)
def pull(*, _force: bool) -> None:
    """Nothing is pulled: values stay in the vault."""
    click.echo("Nothing to pull: values stay in the vault")


@secrets.command("push")
@click.option("-f", "--force", "_force", is_flag=True)
def push(*, _force: bool) -> None:
    """Nothing is pushed: there are no values here."""
    click.echo("Nothing to push: values are in the vault already")
