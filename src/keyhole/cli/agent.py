"""``agent``: machine identities and their tokens."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.names import agents, policies, services
from keyhole.core.errors import InvalidRequest
from keyhole.core.path import parse_name


@group("agent", examples="keyhole agent add coder\nkeyhole agent token coder --ttl 1h")
def agent() -> None:
    """Machine identities and their tokens."""


@agent.command("add", examples="keyhole agent add coder --description 'works on the web shop'")
@click.argument("name")
@click.option("--description", metavar="TEXT", help="For people.")
@pass_session
def add(session: Session, /, *, name: str, description: str | None) -> None:
    """Make an agent. It can use nothing until something is granted to it."""
    body = {"description": description} if description is not None else {}
    data = session.client.write(f"agents/{parse_name(name)}", body).data
    session.out.done(data, f"agent {data['name']}; next: keyhole grant {data['name']} SERVICE")


@agent.command("list", examples="keyhole agent list\nkeyhole agent list --json")
@pass_session
def list_agents(session: Session, /) -> None:
    """All agents, what they may use, and how many live tokens they have."""
    found = [session.client.read(f"agents/{name}").data for name in session.names("agents")]
    rows = [[a["name"], " ".join(a["services"]) or "-", a["tokens"], a["description"]] for a in found]
    session.out.table(
        found, ["name", "services", "tokens", "description"], rows, empty="no agents yet: keyhole agent add NAME"
    )


@agent.command("show", examples="keyhole agent show coder")
@click.argument("name", shell_complete=agents)
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """One agent."""
    data = session.client.read(f"agents/{parse_name(name)}").data
    lines = (f"{key + ':':<13}{' '.join(value) if isinstance(value, list) else value}" for key, value in data.items())
    session.out.result(data, lines)


@agent.command(
    "token",
    examples="""
    keyhole agent token coder --ttl 1h --json
    keyhole agent token ci --scope proxy --ttl 20m --run 4711 --workflow nightly
    keyhole agent token ci --ttl 10m --uses 50 --service stripe --bind 10.1.0.0/16 --run 4711 --step test
    """,
)
@click.argument("name", shell_complete=agents)
@click.option("--ttl", metavar="DURATION", help="How long it lives; 24h unless said.")
@click.option("--scope", type=click.Choice(["full", "proxy"]), help="proxy: it can do nothing but make calls.")
@click.option("--max-ttl", "explicit_max_ttl", metavar="DURATION", help="A cap that renewals cannot pass.")
@click.option(
    "--uses",
    "--num-uses",
    "num_uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests that it is good for; any number unless said.",
)
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="NAME",
    shell_complete=services,
    help="It uses this service and no other; may be given again.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    shell_complete=policies,
    help="It has this policy instead of the agent's; one of the agent's or of your own. May be given again.",
)
@click.option(
    "--bind",
    "bound_cidrs",
    multiple=True,
    metavar="ADDRESS|CIDR",
    help="It counts from here only; may be given again.",
)
@click.option("--workflow", metavar="NAME", help="Written into each of its audit records, as are the next four.")
@click.option("--run", metavar="ID", help="Run of the workflow.")
@click.option("--step", metavar="ID", help="Step of the run.")
@click.option("--tool", metavar="NAME", help="The consumer that acts.")
@click.option("--on-behalf-of", metavar="WHO", help="The person for whom it acts.")
@click.option("--traceparent", metavar="TEXT", help="The W3C trace of its requests, unless they say another one.")
@pass_session
def token(session: Session, /, *, name: str, **fields: Any) -> None:
    """Make a token for an agent, and print it once."""
    for option in click.get_current_context().command.params:
        given = fields.get(str(option.name))
        if given == "" or (isinstance(given, tuple) and "" in given):  # a variable that is not set limits nothing
            raise InvalidRequest(f"{option.opts[0]} is empty", "give it a value, or leave it out")
    body = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if value}
    answer = session.client.write(f"agents/{parse_name(name)}/token", body)
    for warning in answer.warnings:
        session.out.warn(warning)
    if not session.out.json:
        session.out.say(f"a token of {name} until {answer.data['expires_at']}, accessor {answer.data['accessor']}:")
    session.out.result(answer.data, str(answer.data["token"]))


@agent.command("tokens", examples="keyhole agent tokens coder\nkeyhole agent tokens coder --json")
@click.argument("name", shell_complete=agents)
@pass_session
def tokens(session: Session, /, *, name: str) -> None:
    """The live tokens of an agent by their accessors, the newest first. A token itself is shown only once."""
    data = session.client.read(f"agents/{parse_name(name)}/tokens").data
    found = data["tokens"]
    rows = [[t["accessor"], t["created"], t["expires_at"], t["scope"], _narrowed(t)] for t in found]
    session.out.table(
        found, ["accessor", "created", "expires_at", "scope", "for"], rows, empty=f"{name} has no live token"
    )
    if len(found) < data["total"]:
        session.out.warn(f"these are the newest {len(found)} of {data['total']}")


def _narrowed(token: dict[str, Any]) -> str:
    """What it is for, and how far it reaches."""
    said = [f"{name}={token[name]}" for name in ("workflow", "run", "step", "tool", "on_behalf_of") if name in token]
    said += [f"services={','.join(token['services'])}"] if "services" in token else []
    return " ".join([*said, *([f"uses={token['num_uses']}"] if "num_uses" in token else [])])


@agent.command(
    "revoke", examples="keyhole agent revoke coder\nkeyhole agent revoke coder --accessor fyCpPzJq28jUFtjL90UqdCuX"
)
@click.argument("name", shell_complete=agents)
@click.option("--accessor", metavar="ACCESSOR", help="End this token alone; see keyhole agent tokens.")
@pass_session
def revoke(session: Session, /, *, name: str, accessor: str | None) -> None:
    """End all tokens of an agent, at once, or one of them."""
    body = {"accessor": accessor} if accessor is not None else {}
    data = session.client.write(f"agents/{parse_name(name)}/revoke", body).data
    session.out.done({"name": name, **data}, f"ended {data['revoked']} token(s) of {name}")


@agent.command("rm", examples="keyhole agent rm coder")
@click.argument("name", shell_complete=agents)
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove an agent with its grants, and end its tokens."""
    name = parse_name(name)
    session.client.read(f"agents/{name}")
    session.client.delete(f"agents/{name}")
    session.out.done({"name": name, "removed": True}, f"removed the agent {name}; its tokens have ended")
