"""``why``: what would happen to a call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.names import agents, services
from keyhole.core.errors import InvalidRequest

NOT_ALLOWED = 1
_TOOLS = "tools/"
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
    keyhole why coder use tools/github/create_issue
    keyhole why use tools/github/create_issue --agent coder --arguments '{"repo": "acme/site"}'
    """,
)
@click.argument("method")
@click.argument("url")
@click.argument("tool", default="")
@click.option("--arguments", metavar="JSON", default="", help="Of a tool: would they be let through?")
@click.option("--agent", shell_complete=agents, metavar="NAME", default="", help="Who would call; you, unless said.")
@click.option(
    "--service", shell_complete=services, metavar="NAME", default="", help="The service that the call would name."
)
@pass_session
def why_command(
    session: Session, /, *, method: str, url: str, tool: str, arguments: str, agent: str, service: str
) -> int:
    """Which service a call would go through and what would be attached, or exactly why not.

    Of a tool: AGENT use tools/SERVER/TOOL. Nothing is sent. Exit code 0 if the call is allowed, 1 if not.
    """
    if tool:
        if url != "use" or not tool.startswith(_TOOLS):
            raise InvalidRequest("of a tool it is asked in three words", "keyhole why AGENT use tools/SERVER/TOOL")
        agent, method, url = method, "use", tool
    question: dict[str, Any] = {"method": method.upper(), "url": url, "agent": agent, "service": service}
    if arguments:
        question["arguments"] = _object(arguments)
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
    if "tool" in answer:
        yield from _tool(answer)
        return
    if answer["service"] is None:
        yield f"  no service matches; egress is {answer['egress']!r}, so the call goes out as it is"
        return
    yield f"  service:  {answer['service']}"
    if "methods" in answer:  # a session with a database has none
        yield f"  rule:     methods {_list(answer['methods'])}, paths {_list(answer['paths'])}"
    yield f"  secret:   {answer['secret'] or 'none'}"
    yield f"  injected: {answer['inject']}"
    if answer.get("minted"):
        yield "  token:    made with the secret, which itself goes to the token endpoint at most"
    if certificate := answer.get("certificate"):
        yield f"  client:   shows the certificate in {certificate}, whose key stays here"
    for line in answer.get("checks", ()):
        yield f"  checked:  {line}"
    if tripwire := _TRIPWIRES.get(answer.get("tripwire", "")):
        yield f"  tripwire: {tripwire}"


def _tool(answer: dict[str, Any]) -> Iterator[str]:
    yield f"  rule:     {answer['rule']}"
    yield f"  secrets:  {_list(answer.get('secrets', [])) if answer.get('secrets') else 'none'}"
    if approved := answer["approved"]:
        yield f"  approved: by {approved['by']} at {approved['at']}, as {approved['digest'][:16]}…"
    for line in answer["checks"]:
        yield f"  checked:  {line}"


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("--arguments takes an object in JSON", """'{"repo": "acme/site"}'""")
    return found


def _list(items: list[str]) -> str:
    return " ".join(items) or "any"
