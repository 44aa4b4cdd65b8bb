"""``why``: what would happen to a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.names import agents, services

NOT_ALLOWED = 1
# What an org has unless told, "stop", is not worth a line.
_TRIPWIRES = {
    "revoke": "a placeholder or value in any other place stops the call and ends the session's token",
    "off": "off: a placeholder or value in another place is not noticed",
}


@command(
    "why",
    examples="""
    keyhole why GET https://api.stripe.com/v1/balance --agent coder
    keyhole why POST https://api.github.com/repos/o/r/issues --agent coder --service github-bot --json
    """,
)
@click.argument("method")
@click.argument("url")
@click.option("--agent", shell_complete=agents, metavar="NAME", default="", help="Who would call; you, unless said.")
@click.option(
    "--service", shell_complete=services, metavar="NAME", default="", help="The service that the call would name."
)
@pass_session
def why_command(session: Session, /, *, method: str, url: str, agent: str, service: str) -> int:
    """Which service a call would go through and what would be attached, or exactly why not.

    Nothing is sent. Exit code 0 if the call is allowed, 1 if not.
    """
    question = {"method": method.upper(), "url": url, "agent": agent, "service": service}
    answer = session.client.write("sys/why", {name: value for name, value in question.items() if value}).data
    session.out.result(answer, _lines(answer))
    return 0 if answer["allowed"] else NOT_ALLOWED


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    who = answer["caller"] or "you"
    if not answer["allowed"]:
        error = answer["error"]
        yield f"not allowed: {answer['method']} {answer['url']} as {who}"
        yield f"  why:  {error['code']}: {error['reason']}"
        for near in answer.get("near", ()):
            parts = ", ".join(f"the {part} ({wants})" for part, wants in near["differs"].items())
            yield f"  near: the service {near['service']} differs in {parts}"
        if error["hint"]:
            yield f"  next: {error['hint']}"
        return
    yield f"allowed: {answer['method']} {answer['url']} as {who}"
    if answer["service"] is None:
        yield f"  no service matches; egress is {answer['egress']!r}, so the call goes out as it is"
        return
    yield f"  service:  {answer['service']}"
    if "methods" in answer:  # a session with a database has none
        yield f"  rule:     methods {_list(answer['methods'])}, paths {_list(answer['paths'])}"
    yield f"  secret:   {answer['secret']}"
    yield f"  injected: {answer['inject']}"
    if answer.get("minted"):
        yield "  token:    made with the secret, which itself goes to the token endpoint at most"
    if certificate := answer.get("certificate"):
        yield f"  client:   shows the certificate in {certificate}, whose key stays here"
    for line in answer.get("checks", ()):
        yield f"  checked:  {line}"
    if tripwire := _TRIPWIRES.get(answer.get("tripwire", "")):
        yield f"  tripwire: {tripwire}"


def _list(items: list[str]) -> str:
    return " ".join(items) or "any"
