"""``grant`` and ``revoke``, and the two questions about them."""

from __future__ import annotations

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.names import agents, secrets, services
from keyhole.core.path import parse_name, parse_secret_ref


@command("grant", examples="keyhole grant coder stripe")
@click.argument("agent", shell_complete=agents)
@click.argument("service", shell_complete=services)
@pass_session
def grant_command(session: Session, /, *, agent: str, service: str) -> None:
    """Let an agent use a service. It can make calls through it and never sees the value."""
    data = session.client.write(f"agents/{parse_name(agent)}/services/{parse_name(service)}").data
    message = f"{agent} may use {service}" + ("" if data["changed"] else " already")
    session.out.done(data, message)


@command("revoke", examples="keyhole revoke coder stripe")
@click.argument("agent", shell_complete=agents)
@click.argument("service", shell_complete=services)
@pass_session
def revoke_command(session: Session, /, *, agent: str, service: str) -> None:
    """Take a grant back. It holds from the next call on; tokens stay (keyhole agent revoke ends them)."""
    data = session.client.delete(f"agents/{parse_name(agent)}/services/{parse_name(service)}").data
    message = f"{agent} may not use {service} any more" if data["changed"] else f"{agent} had no grant for {service}"
    session.out.done(data, message)


@command("who-can", examples="keyhole who-can stripe/api-key\nkeyhole who-can /database/creds/readonly")
@click.argument("name", shell_complete=secrets)
@pass_session
def who_can_command(session: Session, /, *, name: str) -> None:
    """Which agents can use a secret or a source, and through which services; and which can read or change it."""
    path, _ = parse_secret_ref(name)
    source = path.startswith("/")
    data = session.client.read(f"sys/who-can/{path.removeprefix('/')}", **({"source": "true"} if source else {})).data
    rows = [[e["agent"], ", ".join(e["uses_through"]) or "-", ", ".join(e["may"]) or "-"] for e in data["agents"]]
    session.out.table(data, ["agent", "uses through", "may"], rows, empty=f"no agent can use or read {path}")


@command("what-can", examples="keyhole what-can coder\nKEYHOLE_TOKEN=… keyhole what-can")
@click.argument("agent", required=False, shell_complete=agents)
@pass_session
def what_can_command(session: Session, /, *, agent: str | None) -> None:
    """Which services an agent can use, where they go, and which secrets are in them; without AGENT: you yourself."""
    name = parse_name(agent.removeprefix("agent/")) if agent else ""
    if name:
        session.client.read(f"agents/{name}")
    data = session.client.read(f"sys/what-can/{name}".rstrip("/")).data
    rows = [[s["name"], " ".join(s["hosts"]), s["secret"]] for s in data["services"]]
    session.out.table(data, ["service", "hosts", "secret"], rows, empty=f"{data['agent']} can use nothing")
