"""``mcp server``: the servers that stand behind the gateway."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Group, Session, pass_session
from keyhole.cli.checks import body_tests
from keyhole.cli.mcp.noun import mcp
from keyhole.cli.names import agents
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.tool_server import ToolServer, parse_server_name


@mcp.group(
    "server",
    cls=Group,
    examples="keyhole mcp server add github --env GITHUB_TOKEN=github/token -- npx -y some-mcp-server",
)
def server() -> None:
    """The servers behind keyhole mcp gateway."""


@server.command(
    "add",
    examples="""
    keyhole mcp server add github --env GITHUB_PERSONAL_ACCESS_TOKEN=github/token -- npx -y some-mcp-server
    keyhole mcp server add jira --env JIRA_TOKEN=jira/login#token --set JIRA_URL=https://jira.example -- uvx jira-mcp
    keyhole mcp server add notes --url https://notes.example/mcp --header 'Authorization=Bearer {notes/token}'
    keyhole mcp server add git --deny 'delete_*' --condition 'push:/branch=agent/*' --approve 'merge*' -- git-mcp
    keyhole mcp server add pay --rate '*:10/m' --condition 'refund:/amount<=50' --rule 'pay={"schema": …}' -- pay-mcp
    """,
)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--url", default="", help="Of a server that is asked over HTTP.")
@click.option("--env", "envs", multiple=True, metavar="VAR=NAME[#FIELD]", help="A secret in the program's environment.")
@click.option("--set", "settings", multiple=True, metavar="VAR=TEXT", help="What is no secret, the same.")
@click.option("--header", "headers", multiple=True, metavar="H=NAME[#FIELD]", help="A secret; or 'Bearer {NAME}'.")
@click.option("--oauth", default="", metavar="/MOUNT/NAME", help="A connection whose token it gets, for --url.")
@click.option("--allow", "allow", multiple=True, metavar="GLOB", help="Tools that are offered; all unless said.")
@click.option("--deny", "deny", multiple=True, metavar="GLOB", help="Tools that are not; wins over --allow.")
@click.option("--condition", "conditions", multiple=True, metavar="GLOB:TEST", help="refund:/amount<=50")
@click.option("--rate", "rates", multiple=True, metavar="GLOB:N/TIME", help="Calls of each agent and tool, evenly.")
@click.option("--count", "counts", multiple=True, metavar="GLOB:N/TIME", help="Calls of each agent and tool in all.")
@click.option("--approve", "approvals", multiple=True, metavar="GLOB", help="A person approves each call of these.")
@click.option("--approval-wait", metavar="TIME", default="", help="Hold such calls so long instead of refusing them.")
@click.option("--rule", "rules", multiple=True, metavar="GLOB=JSON", help="All of it as JSON, and JSON Schema.")
@click.option("--allow-address", "addresses", multiple=True, metavar="CIDR", help="A private network, for --url.")
@click.option("--ask", "asks", multiple=True, metavar="KIND", help="sampling, elicitation: what it may ask the client.")
@click.option("--agent", default="", shell_complete=agents, help="As whom the program reaches services by the broker.")
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "require", "off"]),
    default="auto",
    show_default=True,
    help="Shut the program in where the system allows it, or not without, or not at all.",
)
@click.option("--memory", default="", metavar="SIZE", help="That the program may take; 2GiB unless said.")
@click.option("--timeout", default="", help="That a call may take; 60s unless said.")
@pass_session
def add(session: Session, /, *, name: str, command: tuple[str, ...], **options: Any) -> None:
    """Bind a server: its program or URL, and the secrets that it gets. One of that name is replaced.

    Needs read on the secrets, and sudo for a program. Its tools are offered once they are approved.
    """
    name = parse_server_name(name)
    if bool(command) == bool(options["url"]):
        raise InvalidRequest(
            "a server is either a program, which stands last, after --, or a --url",
            "keyhole mcp server add NAME --env VAR=SECRET -- PROGRAM …",
        )
    body: dict[str, Any] = {
        "env": _pairs(options["envs"], "--env", "VAR=SECRET"),
        "settings": _pairs(options["settings"], "--set", "VAR=TEXT"),
        "headers": _pairs(options["headers"], "--header", "HEADER=SECRET"),
        "allow": list(options["allow"]),
        "deny": list(options["deny"]),
        "rules": _rules(options),
        "asks": list(options["asks"]),
        "allow_addresses": list(options["addresses"]),
    }
    if options["url"]:
        body |= {"transport": "http", "url": options["url"]}
    if options["oauth"]:
        body["oauth"] = options["oauth"]
    if command:
        body |= {"command": command[0], "args": list(command[1:]), "sandbox": options["sandbox"]}
    body |= {name: options[name] for name in ("agent", "memory") if options[name]}
    if options["timeout"]:
        body["timeout"] = options["timeout"]
    session.client.write(f"tools/servers/{name}", body)
    stored = session.client.read(f"tools/servers/{name}").data
    for warning in _missing(session, name, stored):
        session.out.warn(warning)
    session.out.done(
        stored, f"server {name} added; look at its tools and approve them: keyhole mcp server approve {name}"
    )


def _missing(session: Session, name: str, stored: Mapping[str, Any]) -> Iterator[str]:
    """What the server will miss when it is started, as far as it can be seen from here."""
    bound = ToolServer.from_data(name, {key: value for key, value in stored.items() if key != "approved"})
    fields: dict[str, frozenset[str] | None] = {}
    for path, field in bound.secret_refs():
        if path.startswith("/"):
            continue
        if path not in fields:
            fields[path] = _fields(session, path)
            if fields[path] is None:
                yield f"there is no secret {path!r} yet: keyhole set {path}"
        there = fields[path]
        if there and field not in there:
            yield f"the secret {path!r} has no field {field!r}; it has {', '.join(sorted(there))}"
    if not bound.command:
        return
    if shutil.which(bound.command) is None:
        yield f"there is no program {bound.command!r} here"
    for word in (bound.command, *bound.args):
        file = Path(word)
        if not file.is_absolute() and ("/" in word or word != bound.command) and file.is_file():
            yield f"{word} is found in this folder only, and clients are started in others: {file.absolute()}"


def _fields(session: Session, path: str) -> frozenset[str] | None:
    """The names of the fields of a secret; empty where they may not be known, ``None`` where it is not there."""
    try:
        return frozenset(session.client.read(f"secret/subkeys/{path}").data["subkeys"])
    except NotFound:
        return None
    except KeyholeError:
        return frozenset()


def _pairs(texts: tuple[str, ...], option: str, form: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise InvalidRequest(f"{option} takes {form}", "see keyhole mcp server add --help")
        found[name] = value
    return found


def _rules(options: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for calls, by glob of tools."""
    found: dict[str, Any] = {
        glob: _rule(text) for glob, text in _pairs(options["rules"], "--rule", "GLOB=JSON").items()
    }
    for glob, text in _about(options["conditions"], "--condition", "TEST"):
        tests = body_tests([text])
        found.setdefault(glob, {}).setdefault("conditions", []).extend(tests)
    for option, name in (("rates", "rate"), ("counts", "count")):
        for glob, text in _about(options[option], f"--{name}", "N/TIME"):
            found.setdefault(glob, {}).setdefault("limits", {})[name] = text
    wait = {"wait": options["approval_wait"]} if options["approval_wait"] else {}
    if wait and not options["approvals"]:
        raise InvalidRequest("nothing is to be approved", "say what: --approve 'delete_*'")
    for glob in options["approvals"]:
        found.setdefault(glob, {})["approval"] = {"required": True, **wait}
    return found


def _about(texts: tuple[str, ...], option: str, form: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        glob, colon, what = text.partition(":")
        if not colon or not glob or not what:
            raise InvalidRequest(f"{option} takes GLOB:{form}", "GLOB is the name of a tool, delete_*, or * for all")
        yield glob, what


def _rule(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("--rule takes GLOB=JSON", """'create_*={"arguments": {"repo": "acme/*"}}'""") from None


@server.command("list", examples="keyhole mcp server list")
@pass_session
def list_servers(session: Session, /) -> None:
    """All servers."""
    found = [session.client.read(f"tools/servers/{name}").data for name in session.names("tools/servers")]
    rows = [[s["name"], s["url"] or s["command"], _gets(s), len(s["approved"])] for s in found]
    empty = "no servers yet: keyhole mcp server add NAME …"
    session.out.table(found, ["name", "program or url", "gets", "tools"], rows, empty=empty)


def _gets(data: dict[str, Any]) -> str:
    return " ".join([*data["env"], *data["headers"], *filter(None, [data["oauth"]])]) or "-"


@server.command("show", examples="keyhole mcp server show github")
@click.argument("name")
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """How a server is bound. No value is shown."""
    data = session.client.read(f"tools/servers/{parse_server_name(name)}").data
    session.out.result(data, (f"{key + ':':<17}{_text(value)}" for key, value in data.items() if value))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key}={inner if isinstance(inner, str) else json.dumps(inner)}" for key, inner in value.items()
        )
    return " ".join(value) if isinstance(value, list) else str(value)


@server.command("rm", examples="keyhole mcp server rm github")
@click.argument("name")
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove a server, and what was approved of it. The secrets stay."""
    name = parse_server_name(name)
    session.client.read(f"tools/servers/{name}")
    session.client.delete(f"tools/servers/{name}")
    session.out.done({"name": name}, f"server {name} removed")
