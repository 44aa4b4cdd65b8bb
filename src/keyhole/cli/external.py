"""``external``: secrets that stay in another manager, and are asked for when they are used."""

from __future__ import annotations

import json
from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.consent import read_value
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_name, parse_path

_MOUNT = "external"


@group(
    "external",
    examples="keyhole external add corp --kind vault --set address=https://vault.example --credential token",
)
def external() -> None:
    """Secrets that stay in another manager, and are asked for when they are used."""


@external.command(
    "add",
    examples="""
    keyhole external add corp --kind vault --set address=https://vault.example --credential token < token.txt
    keyhole external add aws --kind aws-secrets-manager --set region=eu-central-1 --json-in < keys.json
    keyhole external add az --kind azure-key-vault --set address=https://x.vault.azure.net --set tenant=example.com
      --set client_id=… --credential-from client_secret=azure/keyhole#value
    keyhole external add op --kind command --arg /usr/bin/op --arg read --arg 'op://{path}' --set json=false
      --credential OP_SERVICE_ACCOUNT_TOKEN
    """,
)
@click.argument("name")
@click.option("--kind", required=True, metavar="KIND", help="What it is: vault, aws-secrets-manager, command, …")
@click.option("--set", "pairs", multiple=True, metavar="NAME=TEXT", help="A setting of this kind; no credential.")
@click.option("--arg", "argv", multiple=True, metavar="TEXT", help="The program of a command, then its arguments.")
@click.option("--credential", default="", metavar="NAME", help="Ask for this credential, or read it from stdin.")
@click.option("--json-in", is_flag=True, help="Read credentials as a JSON object from stdin.")
@click.option("--from-file", default="", metavar="FILE", help="Read them, or the one credential, from a file.")
@click.option(
    "--credential-from", "refs", multiple=True, metavar="NAME=PATH#FIELD", help="A credential that is a secret here."
)
@click.option("--ca-file", default="", metavar="FILE", help="PEM of the CAs by which the source proves itself.")
@click.option("--mount", default=_MOUNT, metavar="PATH", help="Of the engine; made where there is none.")
@pass_session
def add(session: Session, /, *, name: str, kind: str, mount: str, **said: Any) -> None:
    """Say where another manager is and how to log in to it.

    A credential is asked for on a terminal, else read from stdin or --from-file; it is stored encrypted and never shown
    again. Replacing a source takes its credentials again.
    """
    name, mount = parse_name(name), parse_path(mount.strip("/"))
    body: dict[str, Any] = {"kind": kind, **_pairs(said["pairs"], "--set"), "credentials": _credentials(said)}
    body["credentials_from"] = _pairs(said["refs"], "--credential-from")
    if said["argv"]:
        body["argv"] = list(said["argv"])
    if said["ca_file"]:
        body["ca_cert"] = _read(said["ca_file"])
    _write(session, mount, name, body)
    session.out.done(
        {"name": name, "kind": kind, "mount": mount},
        f"added the source {name}; a service lends it with --secret /{mount}/read/{name}/PATH#FIELD",
    )


@external.command("list", examples="keyhole external list")
@click.option("--mount", default=_MOUNT, metavar="PATH", help="Of the engine.")
@pass_session
def list_sources(session: Session, /, *, mount: str) -> None:
    """Names of the sources, and what each is."""
    mount = parse_path(mount.strip("/"))
    found = [dict(session.client.read(f"{mount}/sources/{name}").data) for name in session.names(f"{mount}/sources")]
    rows = [[each["name"], each["kind"], each.get("address") or each.get("region") or ""] for each in found]
    session.out.table(found, ["name", "kind", "where"], rows, empty="no sources yet: keyhole external add NAME …")


@external.command("show", examples="keyhole external show corp")
@click.argument("name")
@click.option("--mount", default=_MOUNT, metavar="PATH", help="Of the engine.")
@pass_session
def show(session: Session, /, *, name: str, mount: str) -> None:
    """One source, with the names of its credentials."""
    data = dict(session.client.read(_path(mount, name)).data)
    session.out.result(data, (f"{key + ':':<18}{_shown(value)}" for key, value in data.items() if value))


@external.command("test", examples="keyhole external test corp\nkeyhole external test corp app/db --field password")
@click.argument("name")
@click.argument("path", default="")
@click.option("--field", default="", metavar="FIELD", help="Which has to be there.")
@click.option("--mount", default=_MOUNT, metavar="PATH", help="Of the engine.")
@pass_session
def test(session: Session, /, *, name: str, path: str, field: str, mount: str) -> None:
    """Whether a source answers; with a path, whether something lies there. No value is shown.

    Exit code 5 when nothing lies there, 6 when the source is away or refuses.
    """
    body = {"path": path, "field": field}
    data = session.client.write(f"{_path(mount, name)}/test", {k: v for k, v in body.items() if v}).data
    there = f"; {path} has {', '.join(data['fields'])}" if "fields" in data else ""
    session.out.result(data, f"the source {name} answers{there}")


@external.command("rm", examples="keyhole external rm corp")
@click.argument("name")
@click.option("--mount", default=_MOUNT, metavar="PATH", help="Of the engine.")
@pass_session
def remove(session: Session, /, *, name: str, mount: str) -> None:
    """Forget a source and its credentials. What lies there stays; services that name it are refused."""
    session.client.read(_path(mount, name))
    session.client.delete(_path(mount, name))
    session.out.done({"name": name, "removed": True}, f"removed the source {name}")


def _path(mount: str, name: str) -> str:
    return f"{parse_path(mount.strip('/'))}/sources/{parse_name(name)}"


def _write(session: Session, mount: str, name: str, body: dict[str, Any]) -> None:
    try:
        session.client.write(f"{mount}/sources/{name}", body)
    except NotFound:
        if session.local is not None and not session.local.is_open:
            raise
        session.client.write(f"sys/mounts/{mount}", {"type": "external"})
        session.out.say(f"mounted the engine external at {mount}/")
        session.client.write(f"{mount}/sources/{name}", body)


def _pairs(said: tuple[str, ...], option: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in said:
        key, sign, text = each.partition("=")
        if not key or not sign:
            raise InvalidRequest(f"{option} is NAME=TEXT", "write it like --set region=eu-central-1")
        found[key] = text
    return found


def _credentials(said: dict[str, Any]) -> dict[str, Any]:
    if said["json_in"]:
        if said["credential"]:
            raise InvalidRequest("--json-in reads all credentials", "leave --credential out")
        text = read_value("Credentials as a JSON object: ", said["from_file"]).reveal()
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict) or not data:
            raise InvalidRequest("the input is not a JSON object of credentials", 'for example {"token": "…"}')
        return data
    if not said["credential"]:
        return {}
    if "=" in said["credential"]:
        raise InvalidRequest(
            "a credential is never given in the command line, where others can see it and the shell remembers it",
            "name it, and pipe it in; if it was a real value, change it now",
        )
    value = read_value(f"Credential {said['credential']}: ", said["from_file"])
    try:
        return {said["credential"]: value.reveal().decode()}
    except UnicodeDecodeError:
        raise InvalidRequest("the credential is not text in UTF-8", "see what the file is") from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - what a user names is opened as it is
            return file.read()
    except (OSError, UnicodeDecodeError):
        raise InvalidRequest(f"{path} cannot be read", "check --ca-file") from None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
