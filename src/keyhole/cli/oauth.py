"""``oauth``: accounts at providers of OAuth tokens, which services lend and Keyhole refreshes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.consent import read_value
from keyhole.cli.oauth_connect import by_browser, by_device, by_paste
from keyhole.cli.versions import confirm
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import format_duration, parse_duration
from keyhole.core.path import parse_name, parse_path

F = TypeVar("F", bound=Callable[..., Any])
MOUNT = "oauth"
_TEXTS = (
    *("provider", "issuer", "authorize_url", "token_url", "device_url", "revoke_url", "client_id", "client_auth"),
    *("grant", "scopes", "subject", "audience", "key_id", "algorithm", "claims"),
)
_mount = click.option("--mount", default=MOUNT, metavar="PATH", help="Of the engine; oauth unless said.")


@group("oauth", examples="keyhole oauth add crm --provider hubspot --client-id ID --scopes 'crm.objects.contacts.read'")
def oauth() -> None:
    """Accounts at providers of OAuth tokens, which services lend and Keyhole refreshes."""


@oauth.command(
    "add",
    examples="""
    keyhole oauth add mail --provider google --client-id ID --scopes https://www.googleapis.com/auth/gmail.readonly
    keyhole oauth add ms --provider microsoft --parameter tenant=contoso.example --client-id ID --no-secret
    keyhole oauth add shop --issuer https://login.shop.example --client-id ID < client-secret.txt
    keyhole oauth add batch --token-url https://login.corp.example/token --grant client_credentials --client-id ID
    keyhole oauth add old --provider xero --client-id ID --grant refresh_token --json-in < both.json
    """,
)
@click.argument("name")
@click.option("--provider", metavar="NAME", help="Of the catalog: keyhole oauth providers.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=TEXT", help="Of that provider; may be repeated."
)
@click.option("--issuer", metavar="URL", help="Its endpoints are looked up there.")
@click.option("--authorize-url", metavar="URL", help="Where the browser is sent.")
@click.option("--token-url", metavar="URL", help="Where tokens are asked for.")
@click.option("--device-url", metavar="URL", help="Where the device flow begins.")
@click.option("--revoke-url", metavar="URL", help="Where tokens are ended.")
@click.option("--client-id", metavar="ID", help="Of the application, as the provider gave it.")
@click.option("--client-auth", metavar="WAY", help="basic, post, private_key_jwt or none; as the provider wants it.")
@click.option("--grant", metavar="GRANT", help="authorization_code (unless said), device_code, client_credentials, …")
@click.option("--scopes", metavar="TEXT", help="With spaces or commas between.")
@click.option("--authorize-param", "authorize_params", multiple=True, metavar="NAME=TEXT", help="Of the browser's URL.")
@click.option("--token-param", "token_params", multiple=True, metavar="NAME=TEXT", help="Of token requests.")
@click.option("--redirect-uri", "redirect_uris", multiple=True, metavar="URI", help="That the application may use.")
@click.option("--subject", metavar="TEXT", help="For jwt_bearer: as whom.")
@click.option("--audience", metavar="TEXT", help="Of what the private key signs; the token URL unless said.")
@click.option("--key-id", metavar="ID", help="Of the private key.")
@click.option("--algorithm", metavar="NAME", help="With which it signs; RS256 unless said.")
@click.option("--claims", metavar="JSON", help="For jwt_bearer: further claims.")
@click.option("--ca-file", metavar="FILE", help="PEM of the CAs by which the provider proves itself.")
@click.option("--no-secret", is_flag=True, help="A client without a secret; or the one that is stored stays.")
@click.option("--json-in", is_flag=True, help="Read client_secret, private_key, refresh_token as one JSON object.")
@click.option("--from-file", default="", metavar="FILE", help="Read the secret from a file.")
@_mount
@pass_session
def add(session: Session, /, *, name: str, mount: str, **said: Any) -> None:
    """Make a connection, or change what is said of one.

    The client's secret (or private key, or refresh token) is asked for on a terminal, else read from stdin or
    --from-file; it is stored encrypted and never shown again.
    """
    name, mount = parse_name(name), parse_path(mount.strip("/"))
    body: dict[str, Any] = {key: said[key] for key in _TEXTS if said[key] is not None}
    for key in ("parameters", "authorize_params", "token_params"):
        if said[key]:
            body[key] = _pairs(said[key])
    if said["redirect_uris"]:
        body["redirect_uris"] = list(said["redirect_uris"])
    if said["ca_file"]:
        body["ca_pem"] = read_text(said["ca_file"])
    body |= _secrets(said)
    data = _write(session, mount, name, body)
    then = data["next_step"] or f"keyhole service add {name} --host HOST --secret /{mount}/{name} --oauth2"
    session.out.done(data, f"the connection {name} at {data['token_url']}: {data['status']}; next: {then}")


@oauth.command("providers", examples="keyhole oauth providers\nkeyhole oauth providers microsoft")
@click.argument("name", default="")
@pass_session
def providers(session: Session, /, *, name: str) -> None:
    """The providers that are known by name, or what is known of one."""
    from keyhole.engines.oauth.providers import described, known  # noqa: PLC0415 - needs no vault

    if name:
        if name not in known():
            raise NotFound("there is no such provider in the catalog", "keyhole oauth providers")
        data = described(known()[name])
        session.out.result(data, _lines(data))
        return
    found = [{"name": each, "title": provider.title} for each, provider in known().items()]
    session.out.table(found, ["name", "provider"], [[each["name"], each["title"]] for each in found])


@oauth.command("list", examples="keyhole oauth list")
@_mount
@pass_session
def list_connections(session: Session, /, *, mount: str) -> None:
    """All connections, and how each stands."""
    try:
        info = dict(session.client.list(f"{parse_path(mount.strip('/'))}/connections").data.get("key_info") or {})
    except NotFound:
        if session.local is not None and not session.local.is_open:
            raise
        info = {}
    found = [{"name": name, **how} for name, how in info.items()]
    rows = [[e["name"], e["provider"], e["grant"], e["status"], _left(e), " ".join(e["scopes_missing"])] for e in found]
    head = ["name", "provider", "grant", "status", "token ends in", "missing scopes"]
    session.out.table(found, head, rows, empty="no connections yet: keyhole oauth add NAME --provider …")


@oauth.command("show", examples="keyhole oauth show crm")
@click.argument("name")
@_mount
@pass_session
def show(session: Session, /, *, name: str, mount: str) -> int:
    """One connection, how it stands and what is to be done. Exit code 1 when somebody has to do something."""
    data = dict(session.client.read(_path(mount, name)).data)
    session.out.result(data, _lines(data))
    return 1 if data["status"] in {"needs consent", "refused"} else 0


@oauth.command(
    "connect",
    examples="""
    keyhole oauth connect crm
    keyhole oauth connect crm --device
    keyhole oauth connect crm --no-browser --redirect-uri http://localhost:8400/callback
    keyhole oauth connect crm --paste --redirect-uri https://app.example/callback
    """,
)
@click.argument("name")
@click.option("--device", is_flag=True, help="Type a code on another device instead.")
@click.option("--paste", is_flag=True, help="Paste the address that the browser ends at, where it runs elsewhere.")
@click.option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@click.option("--redirect-uri", default="", metavar="URI", help="As the provider knows it; a free port unless said.")
@click.option("--param", "params", multiple=True, metavar="NAME=TEXT", help="Of this request, such as login_hint=….")
@click.option("--timeout", default="5m", metavar="DURATION", help="How long to wait for the person; 5m unless said.")
@_mount
@pass_session
def connect(session: Session, /, *, name: str, device: bool, paste: bool, mount: str, **how: Any) -> None:
    """Let a person consent: in a browser, which comes back to this command, or on another device."""
    path, seconds = _path(mount, name), parse_duration(how["timeout"], name="--timeout")
    if device and (paste or how["redirect_uri"]):
        raise InvalidRequest("--device needs no browser here", "leave --paste and --redirect-uri out")
    if device:
        said = by_device(session, path, seconds)
    else:
        begin = {"redirect_uri": how["redirect_uri"], "params": _pairs(how["params"])}
        root = path.rpartition("/connections/")[0]
        way = by_paste if paste else by_browser
        said = way(session, path, f"{root}/callback", begin, seconds, quiet=bool(how["no_browser"]))
    for warning in said.warnings:
        session.out.warn(warning)
    session.out.done(
        dict(said.data), f"connected {name}; scopes: {' '.join(said.data['scopes_granted']) or 'not said'}"
    )


@oauth.command("refresh", examples="keyhole oauth refresh crm")
@click.argument("name")
@_mount
@pass_session
def refresh(session: Session, /, *, name: str, mount: str) -> None:
    """Get new tokens now, also where the provider has refused before."""
    data = session.client.write(f"{_path(mount, name)}/refresh").data
    session.out.done(
        data, f"refreshed {name}; the token ends in {_left(data) or 'a time that the provider did not say'}"
    )


@oauth.command("disconnect", examples="keyhole oauth disconnect crm")
@click.argument("name")
@_mount
@pass_session
def disconnect(session: Session, /, *, name: str, mount: str) -> None:
    """End the tokens at the provider and forget them. The connection stays."""
    said = session.client.write(f"{_path(mount, name)}/disconnect")
    for warning in said.warnings:
        session.out.warn(warning)
    session.out.done(dict(said.data), f"disconnected {name}")


@oauth.command("rm", examples="keyhole oauth rm crm --yes")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_mount
@pass_session
def remove(session: Session, /, *, name: str, yes: bool, mount: str) -> None:
    """Remove a connection, and end its tokens at the provider. Services that lend it are refused."""
    path = _path(mount, name)
    session.client.read(path)
    confirm(f"Remove the connection {name} and end its tokens?", yes=yes)
    said = session.client.delete(path)
    for warning in said.warnings:
        session.out.warn(warning)
    session.out.done({"name": name, "removed": True}, f"removed {name}")


def _path(mount: str, name: str) -> str:
    return f"{parse_path(mount.strip('/'))}/connections/{parse_name(name)}"


def _write(session: Session, mount: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    return write_connection(session, mount, f"{mount}/connections/{name}", body)


def write_connection(session: Session, mount: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Write below the mount of an engine ``oauth``, which is mounted where there is none yet."""
    try:
        said = session.client.write(path, body)
    except NotFound:
        if session.local is not None and not session.local.is_open:
            raise
        session.client.write(f"sys/mounts/{mount}", {"type": "oauth"})
        session.out.say(f"mounted the engine oauth at {mount}/")
        said = session.client.write(path, body)
    for warning in said.warnings:
        session.out.warn(warning)
    return dict(said.data)


def _secrets(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is secret of a connection: one value as it is, several as a JSON object."""
    signs = said["grant"] == "jwt_bearer" or said["client_auth"] == "private_key_jwt"
    names = [] if said["no_secret"] else ["private_key" if signs else "client_secret"]
    names += ["refresh_token"] if said["grant"] == "refresh_token" else []
    if said["json_in"]:
        try:
            data = json.loads(read_value("A JSON object: ", said["from_file"]).reveal())
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or not data.keys() <= {"client_secret", "private_key", "refresh_token"}:
            raise InvalidRequest("this is no JSON object of the client's secrets", '{"client_secret": "…", …}')
        return data
    if len(names) > 1:
        raise InvalidRequest(f"{' and '.join(names)} are needed", 'give both: --json-in < {"client_secret": "…", …}')
    if not names:
        return {}
    try:
        return {names[0]: read_value(f"{names[0]}: ", said["from_file"]).reveal().decode()}
    except UnicodeDecodeError:
        raise InvalidRequest(f"{names[0]} is not text", "give it as the provider shows it") from None


def read_text(path: str) -> str:
    """The text of a file of certificates. Raises ``InvalidRequest``."""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InvalidRequest(f"{path} cannot be read as text", "check --ca-file") from None


def _pairs(said: tuple[str, ...]) -> dict[str, str]:
    pairs = [each.partition("=") for each in said]
    if not all(name and sign for name, sign, _ in pairs):
        raise InvalidRequest("a parameter is NAME=TEXT", "write it like tenant=contoso.example")
    return {name: text for name, _, text in pairs}


def _left(data: Mapping[str, Any]) -> str:
    return format_duration(data["expires_in"]) if data["expires_in"] else ""


def _lines(data: Mapping[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ') + ':':<21}{_shown(value)}"
        for name, value in data.items()
        if value not in ("", [], {})
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
