"""``agentsecrets status`` and ``agentsecrets proxy``: the port of the session, and what went through it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from keyhole.cli.agentsecrets.kept import names_of
from keyhole.cli.base import Session, pass_session
from keyhole.client.session import own_port
from keyhole.core.errors import InvalidRequest, NotFound

_OPENS = "keyhole run -- COMMAND opens one for each command"


@click.command("status")
@pass_session
def status(session: Session) -> None:
    """Who acts here, and where."""
    port = own_port()
    if port is None:
        from keyhole.cli.granted import DEFAULT_AGENT  # noqa: PLC0415  # within a session nothing of the vault is needed

        click.echo(f"Vault    {session.where.location}\nAgent    {DEFAULT_AGENT}\nProxy    not running ({_OPENS})")
    else:
        click.echo(f"Agent    {port.get('/health')['project']}\nProxy    running on port {port.number}")


@click.group("proxy")
def proxy() -> None:
    """The port of this session."""


@proxy.command("start")
@click.option("--port", "number", type=int, default=8765, show_default=True)
def start(number: int) -> None:
    """Say where it is. It belongs to one command, and is opened with it."""
    port = own_port()
    if port is None:
        raise NotFound("there is no session here whose port it could be", _OPENS)
    if port.number != number:
        raise InvalidRequest(
            f"the port of this session is {port.number}", f"or: keyhole run --agentsecrets-port {number} -- COMMAND"
        )
    click.echo(f"Proxy running on port {number}")


@proxy.command("stop")
def stop() -> None:
    """Refused: it ends with its command."""
    raise InvalidRequest("the port ends with the command that it belongs to", "end that command")


@proxy.command("status")
def proxy_status() -> None:
    """Where it is."""
    port = own_port()
    if port is None:
        raise NotFound("Proxy not running", _OPENS)
    click.echo(f"Proxy running on port {port.number}")


@proxy.command("logs")
@click.option("--last", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("--secret", default="", metavar="KEY", help="Those with this secret alone.")
@pass_session
def logs(session: Session, *, last: int, secret: str) -> None:
    """The calls of this session, else those of the agent, one JSON object a line."""
    port = own_port()
    found: Iterable[Mapping[str, Any]]
    if port is not None:
        found = port.get("/logs")["logs"]
    else:
        from keyhole.cli.granted import DEFAULT_AGENT  # noqa: PLC0415  # within a session nothing of the vault is needed

        records = session.client.read("sys/audit-log", agent=f"agent/{DEFAULT_AGENT}", limit=1000).data["records"]
        found = [_event(record) for record in records if _is_call(record)]
    wanted = {secret, *names_of(session, secret)} if secret else set()
    for entry in [e for e in found if not secret or not wanted.isdisjoint(e["secret_keys"])][-last:]:
        click.echo(json.dumps(entry))


def _is_call(record: Mapping[str, Any]) -> bool:
    return record.get("operation") == "use" and record.get("phase") in {"outcome", "refused"}


def _event(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of ours in the form of AgentSecrets."""
    done = record.get("result") == "ok"
    host = str(record.get("host", "")).removesuffix(":443")
    return {
        "timestamp": record["time"],
        "id": record["id"],
        "secret_keys": record.get("secrets", []),
        "agent_id": str(record.get("caller", "")).removeprefix("agent/"),
        "method": record.get("method", ""),
        "target_url": f"https://{host}{record.get('target', '')}",
        "domain": host.partition(":")[0],
        "auth_styles": [],
        "status_code": record.get("status", 0),
        "duration_ms": record.get("milliseconds", 0),
        "status": "OK" if done else "BLOCKED",
        "reason": "credential_echo" if record.get("scrubbed") else "-" if done else record.get("result", ""),
        "redacted": bool(record.get("scrubbed")),
    }
