"""``call``: one call through the broker, without any set-up of a client."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.names import services
from keyhole.cli.output import printable
from keyhole.core.errors import InvalidRequest

_FAILED = 2


def _pair(text: str, mark: str, example: str) -> tuple[str, str]:
    name, found, rest = text.partition(mark)
    if not found or not name.strip() or not rest.strip():
        raise InvalidRequest("an option is not a name and a secret or text", f"for example {example}")
    return name.strip(), rest.strip()


def _body(data: str | None) -> bytes | None:
    if data is None:
        return None
    if not data.startswith("@"):
        return data.encode()
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{data[1:]} cannot be read: {error.strerror}", "check --data") from None


@command(
    "call",
    examples="""
    keyhole call https://api.stripe.com/v1/balance --bearer stripe/api-key
    keyhole call https://api.example.com/v1/things --header X-Api-Key=example/key --data '{"name": "x"}'
    keyhole call https://api.example.com/v1/things --basic example/login --include
    keyhole call 'https://maps.example.com/geocode?q=Paris' --query key=maps/key
    """,
)
@click.argument("url")
@click.option("--bearer", default="", metavar="SECRET", help="Send this secret as Authorization: Bearer.")
@click.option("--basic", default="", metavar="SECRET", help="Send it as Authorization: Basic.")
@click.option("--header", "headers", multiple=True, metavar="NAME=SECRET", help="Send it in a header.")
@click.option("--query", multiple=True, metavar="NAME=SECRET", help="Send it as a query parameter.")
@click.option("--body-field", "body_fields", multiple=True, metavar="A.B=SECRET", help="Send it in the JSON body.")
@click.option("--form-field", "form_fields", multiple=True, metavar="F=SECRET", help="Send it in a form.")
@click.option(
    "--service", shell_complete=services, default="", metavar="NAME", help="Use this service where several fit."
)
@click.option("-X", "--method", default="", metavar="METHOD", help="GET, or POST with a body.")
@click.option("--data", metavar="TEXT|@FILE|@-", help="The body.")
@click.option("-H", "--set", "plain", multiple=True, metavar="'NAME: TEXT'", help="A header without a secret.")
@click.option("-i", "--include", is_flag=True, help="Print status and headers too.")
@click.option("-f", "--fail", is_flag=True, help="Exit with 2 when the status is 400 or more.")
@pass_session
def call_command(
    session: Session,
    /,
    *,
    url: str,
    bearer: str,
    basic: str,
    headers: tuple[str, ...],
    service: str,
    method: str,
    data: str | None,
    plain: tuple[str, ...],
    include: bool,
    fail: bool,
    query: tuple[str, ...],
    body_fields: tuple[str, ...],
    form_fields: tuple[str, ...],
) -> int:
    """Make one call with a credential attached, and print the answer.

    The secret is named, not shown: the call goes through a service that binds this secret to this destination in this
    way. The answer comes back with the secret masked.
    """
    with session.client.context(tool=os.environ.get("KEYHOLE_TOOL") or "keyhole call"):
        answer = session.client.call(
            method.upper() or ("POST" if data is not None or body_fields or form_fields else "GET"),
            url,
            bearer=bearer,
            basic=basic,
            header=dict(_pair(text, "=", "--header X-Api-Key=example/key") for text in headers),
            query=dict(_pair(text, "=", "--query key=example/key") for text in query),
            body_field=dict(_pair(text, "=", "--body-field auth.key=example/key") for text in body_fields),
            form_field=dict(_pair(text, "=", "--form-field client_secret=example/key") for text in form_fields),
            service=service,
            headers=dict(_pair(text, ":", "-H 'Accept: application/json'") for text in plain),
            body=_body(data),
        )
    if session.out.json:
        known = {"status": answer.status, "headers": [list(pair) for pair in answer.headers], "body": answer.text}
        session.out.result({**known, "service": answer.service})
    else:
        if include:
            session.out.result({}, [f"HTTP {answer.status}", *(f"{n}: {v}" for n, v in answer.headers), ""])
        _print(answer.body)
    return _FAILED if fail and answer.status >= 400 else 0


def _print(body: bytes) -> None:
    """The body as it came into a pipe; onto a terminal without what a terminal would obey."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    text = printable(body.decode(errors="replace"))
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
