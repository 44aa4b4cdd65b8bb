"""``mcp server tools`` and ``approve``: what a server offers, as a model would read it, and a person's word on it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.consent import ask_yes, has_terminal
from keyhole.cli.mcp.gateway import quiet, ways
from keyhole.cli.mcp.servers import server
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.tool_server import ToolServer, parse_server_name

if TYPE_CHECKING:
    from keyhole.faces.mcp.gateway.upstream import Listed

_NEW, _CHANGED, _APPROVED, _DENIED = "new", "changed", "approved", "denied"
_SIGNS = re.compile(r"[ _.-]")
# What a terminal shows nothing of although it counts as printable: fillers, joiners and selectors (Unicode's
# Default_Ignorable_Code_Point without format characters, which are made visible anyway, and the blank of braille).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


@server.command("tools", examples="keyhole mcp server tools github")
@click.argument("name")
@pass_session
def tools(session: Session, /, *, name: str) -> None:
    """What a server offers now, and what of it is approved. The server is started for it."""
    offer = _Offer.of(session, parse_server_name(name))
    data = [offer.described(tool) for tool in offer.tools]
    data += [{"tool": tool, "state": "gone", "description": ""} for tool in offer.pins if tool not in offer.tools]
    rows = [[each["tool"], each["state"], _line(each["description"])] for each in data]
    session.out.table(data, ["tool", "", "says"], rows, empty="it offers no tools")
    offer.warn(session)


@server.command(
    "approve",
    examples="""
    keyhole mcp server approve github
    keyhole mcp server approve github create_issue --yes
    keyhole mcp server approve github delete_repo --forget
    """,
)
@click.argument("name")
@click.argument("chosen", nargs=-1, metavar="[TOOL]…")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--forget", is_flag=True, help="Take the approval of the named tools back.")
@pass_session
def approve(session: Session, /, *, name: str, chosen: tuple[str, ...], yes: bool, forget: bool) -> None:
    """Look at the tools of a server that are new or have changed, and approve them as they are now.

    An agent's model reads all that is shown here, so read it first. A tool that is another one later is hidden and
    refused until it is approved again.
    """
    name = parse_server_name(name)
    if forget:
        _forget(session, name, chosen)
        return
    offer = _Offer.of(session, name)
    if missing := [tool for tool in chosen if tool not in offer.tools]:
        raise NotFound(f"the server {name} offers no {missing[0]!r}", f"keyhole mcp server tools {name}")
    if denied := [tool for tool in chosen if not offer.bound.offers(tool)]:
        raise InvalidRequest(f"the server is bound without {denied[0]}", f"keyhole mcp server show {name}")
    waiting = [offer.described(tool) for tool in offer.tools if not chosen or tool in chosen]
    waiting = [each for each in waiting if each["state"] in {_NEW, _CHANGED}]
    offer.warn(session)
    if not waiting:
        session.out.done({"approved": []}, "nothing is new")
        return
    if not session.out.json:
        session.out.say("\n".join(line for each in waiting for line in _read(each)))
    if not yes and not (has_terminal() and ask_yes(f"Approve these {len(waiting)} as they are?")):
        raise InvalidRequest("nothing was approved", "say --yes once you have read them")
    digests = {each["tool"]: each["digest"] for each in waiting}
    session.client.write(f"tools/servers/{name}/pins", {"approve": digests})
    session.out.done({"approved": sorted(digests)}, f"approved: {', '.join(digests)}")
    if not offer.pins:
        session.out.say(f"next: keyhole grant AGENT 'tools/{name}/*', then keyhole mcp install --gateway --agent AGENT")


def _forget(session: Session, name: str, chosen: tuple[str, ...]) -> None:
    pins = _pins(session, name)
    if not chosen:
        raise InvalidRequest("no tool is named", f"keyhole mcp server approve {name} --forget TOOL")
    if missing := [tool for tool in chosen if tool not in pins]:
        raise NotFound(f"{missing[0]!r} is not approved", f"keyhole mcp server show {name}")
    session.client.write(f"tools/servers/{name}/pins", {"forget": list(chosen)})
    session.out.done({"forgotten": list(chosen)}, f"not approved any more: {', '.join(chosen)}")


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a server offers now, and what was approved of it."""

    bound: ToolServer
    tools: dict[str, Listed]
    refused: tuple[str, ...]
    pins: dict[str, Any]

    @classmethod
    def of(cls, session: Session, name: str) -> _Offer:
        """Start the server, and ask it."""
        data = dict(session.client.read(f"tools/servers/{name}").data)
        data.pop("approved", None)
        tools, refused = _asked(session, name)
        return cls(ToolServer.from_data(name, data), tools, refused, _pins(session, name))

    def described(self, tool: str) -> dict[str, Any]:
        """All of a tool that a client would be shown, and how it stands."""
        listed, pin = self.tools[tool], self.pins.get(tool)
        state = _NEW if pin is None else _APPROVED if pin["digest"] == listed.digest else _CHANGED
        shown = listed.tool.model_dump(by_alias=True, mode="json", exclude_none=True)
        shown.pop("name")
        known = {"tool": tool, "state": state if self.bound.offers(tool) else _DENIED, "digest": listed.digest}
        return {**known, "description": "", **shown}

    def warn(self, session: Session) -> None:
        """Say what is not offered."""
        if self.refused:
            names = ", ".join(ascii(name[:80]) for name in self.refused[:20])
            session.out.warn(
                f"not offered, because their names are alike, doubled or none that a tool may have: {names}"
            )


def _asked(session: Session, name: str) -> tuple[dict[str, Listed], tuple[str, ...]]:
    from keyhole.faces.mcp.gateway.gateway import Gateway  # noqa: PLC0415  # the SDK is slow to import

    quiet()
    own = session.client.party()
    stands = Gateway(own, ways(session), frozenset({name}))

    async def look() -> tuple[dict[str, Listed], tuple[str, ...]]:
        try:
            return await stands.listing(name), await stands.refused(name)
        finally:
            await stands.close()

    try:
        return asyncio.run(look())
    finally:
        own.close()


def _pins(session: Session, name: str) -> dict[str, Any]:
    found: dict[str, Any] = session.client.read(f"tools/servers/{name}/pins").data["tools"]
    return found


def _read(tool: Mapping[str, Any]) -> Iterator[str]:
    """A tool as its model reads it: a line for what it is, and one for each further thing that it says."""
    yield f"{tool['tool']} ({tool['state']}): {_text(tool['description'])}"
    if "title" in tool:
        yield f"  title: {_text(tool['title'])}"
    given = _untitled(tool.get("inputSchema", {}), tool["tool"] + "Arguments")
    properties = given.pop("properties", None)
    for name, said in properties.items() if isinstance(properties, dict) else ():
        yield f"  {_text(name)}: {_json(_untitled(said, name))}"
    if said := {key: value for key, value in given.items() if key not in {"type", "required"}}:
        yield f"  arguments: {_json(said)}"
    for part in ("outputSchema", "annotations"):
        if part in tool:
            yield f"  {part}: {_json(_untitled(tool[part], tool['tool'] + 'Output'))}"


def _json(value: Any) -> str:
    return _visible(json.dumps(value, ensure_ascii=False))


def _untitled(value: Any, name: str) -> Any:
    """A copy without the title that libraries make of a name, which says nothing."""
    if not isinstance(value, dict):
        return value
    plain = _SIGNS.sub("", str(value.get("title", ""))).lower() == _SIGNS.sub("", name).lower()
    return {key: inner for key, inner in value.items() if key != "title" or not plain}


def _text(text: str) -> str:
    """A text of which no line can be taken for one of ours."""
    return _visible("\n    ".join(text.strip().splitlines()))


def _visible(text: str) -> str:
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _line(text: str) -> str:
    first = text.strip().partition("\n")[0]
    return first if len(first) <= 80 else first[:79] + "…"
