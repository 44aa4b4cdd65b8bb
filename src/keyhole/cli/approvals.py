"""``requests``, ``approve`` and ``deny``: calls of agents that wait for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.core.errors import InvalidRequest, NotFound

_POLL = 1.0
_ID = "approvals/requests"
_STANDING = "approvals/standing"
_REACH = {"exact": "this request", "target": "any headers and body", "path": "any query, headers and body"}


@command(
    "requests",
    examples="keyhole requests\nkeyhole requests 3f9a1c20b7d4\nkeyhole requests --watch\nkeyhole requests --standing",
)
@click.argument("request", default="")
@click.option("--standing", is_flag=True, help="Standing approvals instead.")
@click.option("--watch", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@pass_session
def requests_command(session: Session, /, *, request: str, standing: bool, watch: bool) -> None:
    """Calls of agents that wait for an approval; with an ID all about one of them.

    No value is shown: names, sizes and digests, and the beginning of the body where its service allows that.
    """
    if request and (standing or watch):
        raise InvalidRequest("an ID is for one request", "leave --standing and --watch out")
    if request:
        data = session.client.read(f"{_ID}/{_checked(request)}").data
        session.out.result(data, _details(data))
    elif watch:
        _follow(session, _STANDING if standing else _ID)
    elif standing:
        rules = _all(session, _STANDING)
        rows = [[r["id"], r["agent"], r["service"], _call(r), _REACH[r["kind"]], r["expires"], r["by"]] for r in rules]
        head = ["id", "agent", "service", "call", "lets through", "until", "by"]
        session.out.table(rules, head, rows, empty="there are no standing approvals")
    else:
        found = _all(session, _ID)
        rows = [
            [r["id"], r["state"], r["agent"], r["service"], _call(r), r.get("size", "-"), r["expires"]] for r in found
        ]
        head = ["id", "state", "agent", "service", "call", "body", "until"]
        session.out.table(found, head, rows, empty="nothing waits for an approval")


@command(
    "approve",
    examples="keyhole approve 3f9a1c20b7d4\nkeyhole approve 3f9a1c20b7d4 --for 1h\n"
    "keyhole approve 3f9a1c20b7d4 --for 1h --any-body",
)
@click.argument("request")
@click.option("--for", "seconds", metavar="TIME", help="A standing approval that ends by itself, such as 1h.")
@click.option("--any-body", is_flag=True, help="With --for: the same method and URL, whatever headers and body.")
@click.option("--same-path", is_flag=True, help="With --for: the same method and path, whatever query as well.")
@pass_session
def approve_command(session: Session, /, *, request: str, seconds: str | None, any_body: bool, same_path: bool) -> None:
    """Let a request through: exactly this one, of this agent, once.

    Nobody can approve what they ask for themselves.
    """
    if (any_body or same_path) and not seconds:
        raise InvalidRequest("an approval of more than this request needs an end", "say for how long: --for 1h")
    kind = "path" if same_path else "target" if any_body else "exact"
    fields = {"for": seconds, "kind": kind} if seconds else {}
    data = session.client.write(f"{_ID}/{_checked(request)}/approve", fields).data
    if seconds:
        message = f"approved until {data['expires']}: {_call(data)} by {data['agent']}, {_REACH[kind]}\n"
        message += f"take it back: keyhole deny {data['id']}"
    elif data.get("kind") == "access":
        message = f"granted: {data['agent']} may use {data['service']}"
    else:
        message = f"approved: {_call(data)} by {data['agent']}, once, until {data['expires']}"
    session.out.done(data, message)


@command("deny", examples="keyhole deny 3f9a1c20b7d4")
@click.argument("request")
@pass_session
def deny_command(session: Session, /, *, request: str) -> None:
    """Refuse a request that waits, or take a standing approval back."""
    name = _checked(request)
    try:
        data = session.client.write(f"{_ID}/{name}/deny").data
    except NotFound:
        data = session.client.delete(f"{_STANDING}/{name}").data
        session.out.done(data, f"taken back: {_call(data)} by {data['agent']}")
        return
    session.out.done(data, f"denied: {_call(data)} by {data['agent']}")


def _checked(text: str) -> str:
    if not text.isalnum() or not text.isascii():
        raise InvalidRequest("this is not the ID of a request", "keyhole requests")
    return text


def _all(session: Session, path: str) -> list[dict[str, Any]]:
    try:
        data = session.client.list(path).data
    except NotFound:
        if session.local is not None and not session.local.is_open:
            raise
        return []
    return [data["key_info"][name] for name in data["keys"]]


def _follow(session: Session, path: str) -> None:
    """Show each once, and again when it was decided."""
    seen: set[tuple[str, str]] = set()
    while True:
        found = _all(session, path)
        for data in found:
            state = (data["id"], data.get("state", ""))
            if state not in seen:
                session.out.result(data, _line(data))
        seen = {(data["id"], data.get("state", "")) for data in found}
        time.sleep(_POLL)


def _line(data: dict[str, Any]) -> str:
    state = data.get("state", "standing")
    next_step = f"   keyhole approve {data['id']}" if state == "pending" else ""
    return f"{data['created']} {state} {data['agent']} {_call(data)} via {data['service']}{next_step}"


def _call(data: dict[str, Any]) -> str:
    if data.get("kind") == "access":
        return f"access: {data['reason']}" if data["reason"] else "access"
    return f"{data['method']} {data['host']}{data.get('target', '')}"


def _details(data: dict[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        if value not in ("", [], None):
            yield f"{name + ':':<14}{' '.join(map(str, value)) if isinstance(value, list) else value}"
