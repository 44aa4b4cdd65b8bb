"""``agentsecrets secrets``: the names of what the agent may use. Values are given to the vault by our own commands."""

from __future__ import annotations

import click

from keyhole.cli.base import Session, pass_session
from keyhole.client.session import own_port
from keyhole.core.errors import InvalidRequest, NotFound


def listed(session: Session) -> dict[str, list[str]]:
    """The name of each secret, and the hosts where it may go."""
    port = own_port()
    if port is not None:
        return {str(item["key"]): list(item["domains"]) for item in port.get("/secrets")["secrets"]}
    from keyhole.cli.granted import DEFAULT_AGENT, bindings  # noqa: PLC0415  # within a session nothing of the vault is needed
    from keyhole.core.service import Service  # noqa: PLC0415  # the same
    from keyhole.faces.run.agentsecrets.names import known  # noqa: PLC0415  # the same

    found: dict[str, list[str]] = {}
    services = [Service.from_data(name, data) for name, data in bindings(session.client, DEFAULT_AGENT).items()]
    for name, service in known(services):
        found.setdefault(name, []).extend(str(host).removesuffix(":443") for host in service.hosts)
    return dict(sorted(found.items()))


@click.group("secrets")
def secrets() -> None:
    """Names of secrets."""


@secrets.command("list")
@pass_session
def list_secrets(session: Session) -> None:
    """The names, one a line."""
    for name in listed(session):
        click.echo(name)


@secrets.command("get")
@click.argument("key")
@pass_session
def get(session: Session, key: str) -> None:
    """The name again, if there is such a secret; never its value."""
    if key not in listed(session):
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
