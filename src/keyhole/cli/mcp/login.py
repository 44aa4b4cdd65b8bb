"""``mcp server login``: a person consents that a server over HTTP is used, and the vault keeps the tokens."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.consent import read_value
from keyhole.cli.mcp.servers import server
from keyhole.cli.oauth import read_text as read_certificates
from keyhole.cli.oauth import write_connection
from keyhole.cli.oauth_connect import PASTED, by_paste, through_browser
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.tool_server import parse_server_name
from keyhole.net.loopback import Landing

_MOUNT = "oauth"


@server.command(
    "login",
    examples="""
    keyhole mcp server login notes
    keyhole mcp server login notes --scope files:write
    keyhole mcp server login notes --client-id 4f1c --no-browser
    keyhole mcp server login notes --client-id 4f1c --client-secret < secret.txt
    """,
)
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="Wanted besides; may be repeated.")
@click.option("--issuer", default="", metavar="URL", help="Who gives the tokens, where the server names several.")
@click.option("--client-id", default="", help="Of a client that the issuer knows; else one is registered.")
@click.option("--client-secret", is_flag=True, help="It has a secret: asked for, or read from stdin.")
@click.option("--ca-file", default="", metavar="FILE", help="Certificates that alone prove the server and the issuer.")
@click.option("--connection", default="", metavar="NAME", help="Of the connection; the server's name unless said.")
@click.option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@click.option("--paste", is_flag=True, help="Paste the address that the browser ends at, where it runs elsewhere.")
@click.option("--timeout", default="5m", metavar="DURATION", help="How long to wait for the person; 5m unless said.")
@pass_session
def login(session: Session, /, *, name: str, **said: Any) -> None:
    """Let a person consent, in a browser, that a server with a URL is used.

    The server says who gives tokens for it. They are kept in the vault, renewed by it, and sent to this server alone.
    """
    name = parse_server_name(name)
    seconds = parse_duration(said["timeout"], name="--timeout")
    bound = dict(session.client.read(f"tools/servers/{name}").data)
    if bound["transport"] != "http":
        raise InvalidRequest(
            f"the server {name} is a program, which gets its credentials with --env", f"keyhole mcp server show {name}"
        )
    mount, connection = _connection(bound, said["connection"] or name)
    path, callback = f"{mount}/connections/{connection}", f"{mount}/callback"
    wanted: dict[str, Any] = {"url": bound["url"], "server": name, "allow_addresses": bound["allow_addresses"]}
    wanted |= {"scopes": list(said["scopes"]), "issuer": said["issuer"], "client_id": said["client_id"]}
    if said["ca_file"]:
        wanted["ca_pem"] = read_certificates(said["ca_file"])
    if said["client_secret"]:
        wanted["client_secret"] = read_value("Secret of the client: ").reveal().decode(errors="replace")
    if said["paste"]:
        _prepare(session, path, {**wanted, "redirect_uri": PASTED}, bound)
        done = by_paste(session, path, callback, {"redirect_uri": PASTED}, seconds, quiet=True)
    else:
        with _listening(session, path) as here:
            _prepare(session, path, {**wanted, "redirect_uri": here.url}, bound)
            done = through_browser(session, here, here.url, path, callback, {}, seconds, quiet=said["no_browser"])
    for warning in done.warnings:
        session.out.warn(warning)
    scopes = " ".join(done.data["scopes_granted"]) or "not said"
    session.out.done(dict(done.data), f"the server {name} may be used; scopes: {scopes}")


def _connection(bound: dict[str, Any], name: str) -> tuple[str, str]:
    """The mount and the name of the connection of a server, or of the one that it will get."""
    if not bound["oauth"]:
        return _MOUNT, name
    mount, _, connection = bound["oauth"].strip("/").rpartition("/")
    return mount.removesuffix("/token"), connection


def _listening(session: Session, path: str) -> Landing:
    """Where the browser comes back to: the port with which a client is registered already, if it is free."""
    known = ""
    try:
        known = session.client.read(path).data["registered_redirect"]
        return Landing(urlsplit(known).port or 0)
    except (NotFound, InvalidRequest):
        return Landing()


def _prepare(session: Session, path: str, wanted: dict[str, Any], bound: dict[str, Any]) -> None:
    """Make the connection, and let the server have its tokens."""
    mount = path.partition("/connections/")[0]
    write_connection(session, mount, f"{path}/resource", wanted)
    if not bound["oauth"]:
        body = {key: value for key, value in bound.items() if key not in {"name", "approved"}}
        reference = f"/{mount}/{path.rpartition('/')[2]}"
        session.client.write(f"tools/servers/{bound['name']}", {**body, "oauth": reference})
