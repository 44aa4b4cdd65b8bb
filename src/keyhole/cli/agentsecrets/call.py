"""``agentsecrets call``: one call, with secrets that are named."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import click

from keyhole.cli.agentsecrets.spawned import again, agent_of, within_or_why_not
from keyhole.client.session import Answer, Port, own_port
from keyhole.core.errors import InvalidRequest, KeyholeError, PolicyDenied

_SECONDS = 300.0
_MASK = re.compile(r"\*{8,}")


def _pairs(style: str, texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, mark, key = text.partition("=")
        if not mark or not name or not key:
            raise InvalidRequest(f"--{style} is NAME=SECRET")
        yield f"X-AS-Inject-{style}-{name.replace('.', '-') if style == 'Body' else name}", key


@click.command("call")
@click.option("--url", required=True, help="Where it goes.")
@click.option("--method", default="GET", show_default=True, help="HTTP method.")
@click.option("--body", help="The body.")
@click.option("--bearer", default="", metavar="SECRET", help="Send it as Authorization: Bearer.")
@click.option("--basic", default="", metavar="SECRET", help="Send it as Authorization: Basic.")
@click.option("--header", multiple=True, metavar="NAME=SECRET", help="Send it in a header.")
@click.option("--query", multiple=True, metavar="NAME=SECRET", help="Send it as a parameter of the URL.")
@click.option("--body-field", multiple=True, metavar="A.B=SECRET", help="Send it in the JSON body.")
@click.option("--form-field", multiple=True, metavar="F=SECRET", help="Send it in a form.")
@click.option("--token", default="", metavar="NAME_TOKEN", help="The agent that calls.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How the answer is printed.")
def call(url: str, method: str, body: str | None, token: str, output: str, **places: Any) -> int:
    """Make a call with secrets attached by the broker, and print the answer without them."""
    agent = agent_of(token)
    port = own_port()
    if port is None:
        code, why_not = within_or_why_not(agent, again())
        if not why_not:
            return code
        _say_failed(why_not, output)
        return 1
    headers = [("X-AS-Target-URL", url), ("X-AS-Method", method.upper())]
    headers += [(f"X-AS-Inject-{style.title()}", places[style]) for style in ("bearer", "basic") if places[style]]
    for option, style in (("header", "Header"), ("query", "Query"), ("body_field", "Body"), ("form_field", "Form")):
        headers += _pairs(style, places[option])
    content = body.encode() if body is not None else None
    if body is not None and _is_json(body) and not places["form_field"]:
        headers.append(("Content-Type", "application/json"))
    began = time.monotonic()
    answer = _send(port, agent, method.upper(), headers, content, output)
    if answer is None:
        return 1
    text = answer.body.decode(errors="replace")
    error = _reason(text) if answer.refused else ""
    if output == "json":
        _print_envelope(answer.status, answer.headers, text, int((time.monotonic() - began) * 1000), error)
    elif error:
        click.echo(f"Error: {error}", err=True)
    else:
        click.echo(f"HTTP {answer.status}\n\n{text}", nl=not text.endswith("\n"))
    return 1 if error else 0


def _send(
    port: Port, agent: str, method: str, headers: list[tuple[str, str]], content: bytes | None, output: str
) -> Answer | None:
    """The answer; ``None`` where there is none, which has been said."""
    try:
        own = str(port.get("/health")["project"])
        if agent and agent != own:
            raise PolicyDenied(f"this session acts as {own}, and not as {agent}", "keyhole run --agent NAME -- COMMAND")
        return port.send(method, "/proxy", headers, content, _SECONDS)
    except KeyholeError as error:
        if output != "json":
            raise
        _say_failed(str(error), output)
        return None


def _say_failed(reason: str, output: str) -> None:
    """That there is no answer. Programs read an envelope whatever happened."""
    if output == "json":
        _print_envelope(0, {}, "", 0, reason)
    else:
        click.echo(f"Error: {reason}", err=True)


def _print_envelope(status: int, headers: dict[str, list[str]], body: str, milliseconds: int, error: str) -> None:
    envelope = {"status": status, "headers": headers, "body": body, "redacted": bool(_MASK.search(body))}
    click.echo(json.dumps({**envelope, "duration_ms": milliseconds, **({"error": error} if error else {})}))


def _reason(text: str) -> str:
    """The port's own words for a refusal."""
    said = json.loads(text)
    word, message = str(said.get("error", "")), str(said.get("message", ""))
    return f"{word}: {message}" if message else word


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
