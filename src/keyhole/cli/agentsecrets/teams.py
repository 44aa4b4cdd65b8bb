"""Workspaces, projects, agents and environments: lists in the forms that the SDK reads.

A workspace is an org of ours and a project is an agent. Who may do what is changed by our own commands, which say what
they change; what would need them is refused with a word about the right one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from keyhole.cli.agentsecrets.kept import listed
from keyhole.cli.base import Session, pass_session
from keyhole.client.session import own_port
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.path import parse_name

_HERE = "keyhole"
_ID = 19  # characters of an accessor, which fit into the first column and mean one token still


def refused(group: click.Group, name: str, hint: str) -> None:
    """A verb that says which of our commands does this."""

    @group.command(name, context_settings={"ignore_unknown_options": True}, help=f"Refused: {hint}.")
    @click.argument("_words", nargs=-1, type=click.UNPROCESSED)
    def refuse(_words: tuple[str, ...]) -> None:
        raise InvalidRequest(f"{group.name} {name} is not done here", hint)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table between lines, as the SDK reads it."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    rules = ["─" * (width + 2) for width in widths]
    cells = [
        "│" + "│".join(f" {text:<{width}} " for text, width in zip(line, widths, strict=True)) + "│" for line in lines
    ]
    click.echo("╭" + "┬".join(rules) + "╮")
    click.echo(cells[0])
    click.echo("├" + "┼".join(rules) + "┤")
    for line in cells[1:]:
        click.echo(line)
    click.echo("╰" + "┴".join(rules) + "╯")


def _agents(session: Session) -> list[str]:
    port = own_port()
    return [str(port.get("/health")["project"])] if port is not None else session.names("agents")


def _require_outside() -> None:
    """Refuse what an agent must not do about agents. Raises ``PolicyDenied``."""
    if own_port() is not None:
        raise PolicyDenied("a command of keyhole run has no way to the vault", "do it outside of the session")


@click.group("workspace")
def workspace() -> None:
    """The vault that is used."""


@workspace.command("list")
def list_workspaces() -> None:
    """The one that is used."""
    click.echo(f"→ {_HERE} (personal)")


@workspace.command("members")
@pass_session
def members(session: Session) -> None:
    """The agents; users of the vault are not told here."""
    for name in _agents(session):
        click.echo(f"{name}@{_HERE} (agent) active")


for _verb in ("switch", "create", "invite", "remove", "promote", "demote"):
    refused(workspace, _verb, "keyhole org, keyhole policy, or --vault of keyhole run")


@workspace.group("allowlist")
def allowlist() -> None:
    """Where secrets may go."""


@allowlist.command("list")
@pass_session
def list_allowed(session: Session) -> None:
    """The hosts of the services that the agent may use."""
    hosts = sorted({host.partition(":")[0] for item in listed(session) for host in item["domains"]})
    _table(("Domain", "Added By", "Added At"), [(host, "service", "-") for host in hosts])


for _verb in ("add", "remove"):
    refused(allowlist, _verb, "a host is bound to each secret: keyhole service add NAME --host HOST --secret SECRET …")
refused(allowlist, "log", "keyhole audit query")


@click.group("project")
def project() -> None:
    """Agents, under the name of projects."""


@project.command("list")
@pass_session
def list_projects(session: Session) -> None:
    """One a row."""
    _table(("Project", "Workspace", "Description"), [(name, _HERE, "—") for name in _agents(session)])


@project.command("use")
@click.argument("name")
@pass_session
def use(session: Session, name: str) -> None:
    """Accepted for the agent that acts already."""
    if name not in _agents(session) or own_port() is None:
        raise InvalidRequest("who acts is said where the command is started", "keyhole run --agent NAME -- COMMAND")
    click.echo(f"Using {name}")


for _verb in ("create", "update", "delete", "invite"):
    refused(project, _verb, "keyhole agent add NAME, keyhole agent rm NAME")


@click.group("agent")
def agent() -> None:
    """Agents."""


@agent.command("list")
@click.option("--project", "_project", default="")
@pass_session
def list_agents(session: Session, *, _project: str) -> None:
    """Columns of fixed widths: name, scope, tokens, when last used, when registered."""
    names = _agents(session)
    if not names:
        click.echo("No agents found")
        return
    inside = own_port() is not None
    rows = [(name, 1 if inside else session.client.read(f"agents/{name}").data["tokens"]) for name in names]
    click.echo(f"{'AGENT':<20}{'SCOPE':<16}{'TOKENS':<9}{'LAST USED':<26}REGISTERED")
    for name, tokens in rows:
        click.echo(f"{name[:19]:<20}{'workspace':<16}{tokens:<9}{'never':<26}-")


@agent.command("register")
@click.argument("name")
@click.option("--project", "_project")
@click.option("--label", "_label")
@click.option("--expires", "_expires")
@click.option("--env", "_env")
@click.option("--save-token", "_save", is_flag=True)
@pass_session
def register(session: Session, /, *, name: str, **_ignored: object) -> None:
    """Add an agent. No token is printed: ``keyhole agent token`` makes one, and ``keyhole run`` needs none."""
    _require_outside()
    session.client.write(f"agents/{parse_name(name)}")
    click.echo(f"Name     {name}\nScope    workspace")


@agent.command("delete")
@click.argument("name")
@click.option("--confirm", is_flag=True, help="Do it.")
@pass_session
def delete(session: Session, name: str, *, confirm: bool) -> None:
    """Remove an agent with its grants, and end its tokens."""
    _require_outside()
    if not confirm:
        raise InvalidRequest("this removes an agent", "say --confirm")
    session.client.read(f"agents/{parse_name(name)}")
    session.client.delete(f"agents/{name}")
    click.echo(f"Removed {name}")


@agent.group("token")
def token() -> None:
    """Tokens of agents."""


refused(token, "issue", "keyhole agent token NAME prints one; keyhole run needs none")


@token.command("list")
@click.argument("name")
@pass_session
def list_tokens(session: Session, name: str) -> None:
    """Columns of fixed widths: id, label, end, when last used (not kept), state."""
    _require_outside()
    found = session.client.read(f"agents/{parse_name(name)}/tokens").data["tokens"]
    if not found:
        click.echo("No tokens found")
        return
    click.echo(f"{'TOKEN ID':<20}{'LABEL':<16}{'EXPIRES':<16}{'LAST USED':<26}STATUS")
    for each in found:
        label = str(each.get("run") or each.get("tool") or "(none)")
        ends = each["expires_at"][: len("2027-01-31")] or "(none)"
        click.echo(f"{each['accessor'][:_ID]:<20}{label[:15]:<16}{ends:<16}{'':<26}active")


@token.command("revoke")
@click.argument("token_id", required=False, default="")
@click.option("--agent", "name", required=True, metavar="NAME", help="Whose it is.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--confirm", is_flag=True, help="Do it.")
@pass_session
def revoke(session: Session, /, *, token_id: str, name: str, every: bool, confirm: bool) -> None:
    """End one token of an agent, by its id in the list, or all of them."""
    _require_outside()
    path = f"agents/{parse_name(name)}"
    if every == bool(token_id):
        raise InvalidRequest("one token is meant, or all", "give its id, or --all")
    if not confirm:
        raise InvalidRequest("this ends tokens", "say --confirm")
    body = {}
    if token_id:
        named = [each["accessor"] for each in session.client.read(f"{path}/tokens").data["tokens"]]
        body["accessor"] = next((each for each in named if token_id in {each, each[:_ID]}), token_id)
    click.echo(f"Revoked {session.client.write(f'{path}/revoke', body).data['revoked']} token(s) of {name}")


@agent.group("policy")
def policy() -> None:
    """What agents may use."""


@policy.command("get")
@click.argument("name")
@pass_session
def get_policy(session: Session, name: str) -> None:
    """The secrets of its services."""
    _require_outside()
    from keyhole.cli.granted import bindings  # noqa: PLC0415  # the only one that asks so

    secrets = sorted(
        {str(data["secret"]).partition("#")[0] for data in bindings(session.client, parse_name(name)).values()}
    )
    click.echo(f"Allowed Secrets: {', '.join(filter(None, secrets)) or '(none)'}\nDenied Secrets: (none)")


refused(policy, "set", "keyhole grant NAME SERVICE, keyhole revoke NAME SERVICE")


@click.group("environment")
def environment() -> None:
    """Environments."""


refused(environment, "switch", "an agent of its own for each: keyhole run --agent NAME -- COMMAND")
