"""``grant`` and ``revoke``, and the two questions about them."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.names import agents, secrets, services
from keyhole.core.path import parse_name, parse_secret_ref

_TOOLS = "tools/"
_SHOWN = 8  # tools of a server, in a table


@command(
    "grant",
    examples="keyhole grant coder stripe\nkeyhole grant coder tools/github/create_issue\n"
    "keyhole grant coder 'tools/github/*'",
)
@click.argument("agent", shell_complete=agents)
@click.argument("service", shell_complete=services)
@pass_session
def grant_command(session: Session, /, *, agent: str, service: str) -> None:
    """Let an agent use a service, or a tool of an MCP server. It can make calls through it and never sees the value."""
    if service.startswith(_TOOLS):
        data = _set_tool(session, agent, service, revoke=False)
        message = f"{agent} may use {service}" + ("" if data["changed"] else " already")
        if not data["approved"] and "@" not in service:
            server = data["tool"].partition("/")[0]
            message += f"; it is offered once it is approved: keyhole mcp server approve {server}"
        session.out.done(data, message)
        return
    data = session.client.write(f"agents/{parse_name(agent)}/services/{parse_name(service)}").data
    message = f"{agent} may use {service}" + ("" if data["changed"] else " already")
    session.out.done(data, message)


@command("revoke", examples="keyhole revoke coder stripe\nkeyhole revoke coder 'tools/github/*'")
@click.argument("agent", shell_complete=agents)
@click.argument("service", shell_complete=services)
@pass_session
def revoke_command(session: Session, /, *, agent: str, service: str) -> None:
    """Take a grant back. It holds from the next call on; tokens stay (keyhole agent revoke ends them)."""
    if service.startswith(_TOOLS):
        data = _set_tool(session, agent, service, revoke=True)
    else:
        data = session.client.delete(f"agents/{parse_name(agent)}/services/{parse_name(service)}").data
    message = f"{agent} may not use {service} any more" if data["changed"] else f"{agent} had no grant for {service}"
    session.out.done(data, message)


def _set_tool(session: Session, agent: str, tool: str, *, revoke: bool) -> dict[str, Any]:
    body = {"tool": tool.removeprefix(_TOOLS), "revoke": revoke}
    data: dict[str, Any] = session.client.write(f"agents/{parse_name(agent)}/tools", body).data
    return data


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
    """What an agent can use: services, where they go, and tools; with their secrets. Without AGENT: you yourself."""
    name = parse_name(agent.removeprefix("agent/")) if agent else ""
    if name:
        session.client.read(f"agents/{name}")
    data = session.client.read(f"sys/what-can/{name}".rstrip("/")).data
    rows = [[s["name"], " ".join(s["hosts"]), s["secret"]] for s in data["services"]]
    tools = [[f"tools/{each['server']}", _some(each["tools"]), " ".join(each["secrets"])] for each in data["tools"]]
    head = ["service", "hosts, or tools" if tools else "hosts", "secret"]
    session.out.table(data, head, rows + tools, empty=f"{data['agent']} can use nothing")


def _some(names: list[str]) -> str:
    more = f" … {len(names)} in all" if len(names) > _SHOWN else ""
    return " ".join(names[:_SHOWN]) + more
