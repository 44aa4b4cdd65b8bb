"""``set`` and ``get``: the only commands through which a value passes."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import ask_yes, has_terminal, read_value
from keyhole.cli.names import secrets
from keyhole.cli.output import printable
from keyhole.cli.when import expiry_of
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.path import DEFAULT_FIELD, fields_of, parse_field, parse_path, parse_shown_ref, revealing
from keyhole.core.value import Secret

TYPES = ("api-key", "oauth-token", "password", "certificate", "connection-string", "ssh-key", "backup", "custom")
SHORT = 8
"""Bytes below which a value cannot be scrubbed from answers: ``keyhole.scrub.MIN_SECRET``."""


def no_value(name: str, extra: tuple[str, ...] = (), verb: str = "keyhole set") -> None:
    """Refuse what may be a value in the command line, without repeating it: ``NAME VALUE`` and ``NAME=VALUE``."""
    if extra or "=" in name:
        shown = "NAME" if "=" in name else printable(name)
        raise InvalidRequest(
            "a value is never given in the command line, where others can see it and the shell remembers it",
            f"pipe it in: {verb} {shown} < FILE; if it was a real value, change it now",
        )


@command(
    "set",
    examples="""
    keyhole set stripe/api-key                    # asks, and does not show what you type
    keyhole set stripe/api-key < key.txt
    keyhole set github/deploy --from-file id_ed25519 --type ssh-key --expires 90d --rotate-every 30d
    keyhole set db/prod --field password < password.txt
    echo '{"username": "app", "password": "…"}' | keyhole set db/prod --json-in
    """,
)
@click.argument("name", shell_complete=secrets)
@click.argument("extra", nargs=-1, metavar="")
@click.option("--field", metavar="FIELD", help="Set this field and leave the others.")
@click.option("--from-file", metavar="FILE", default="", help="Read the value from a file.")
@click.option("--json-in", is_flag=True, help="Read all fields as a JSON object from stdin.")
@click.option("--exact", is_flag=True, help="Keep a newline at the end; one is taken off otherwise.")
@click.option("--type", "kind", type=click.Choice(TYPES), help="What kind of secret it is.")
@click.option("--owner", metavar="TEXT", help="Who is to be asked about it.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated.")
@click.option("--expires", metavar="WHEN", help="Not given out after this: 90d from now, 2027-01-31, or never.")
@click.option("--expires-in", hidden=True)
@click.option(
    "--rotate-every", metavar="DURATION", help="A new value is due this long after the last one, such as 30d."
)
@click.option("--cas", type=int, metavar="VERSION", help="Only if this is the current version; 0 for a new secret.")
@pass_session
def set_command(
    session: Session,
    /,
    *,
    name: str,
    extra: tuple[str, ...],
    field: str | None,
    from_file: str,
    json_in: bool,
    exact: bool,
    **labels: Any,
) -> None:
    """Store a value as the next version of a secret.

    The value is asked for on a terminal, else read from stdin, or from --from-file. One newline at its end is taken
    off. It is never an argument.
    """
    no_value(name, extra)
    name = parse_path(name)
    data = _fields(name, field, from_file, json_in=json_in, exact=exact)
    for each, value in data.items():
        if isinstance(value, str) and len(value.encode()) < SHORT:
            session.out.warn(f"the field {each!r} is shorter than {SHORT} bytes: it cannot be masked in answers")
    request = {"data": data, "options": _options(labels)}
    metadata = _write(session, f"secret/data/{name}", request, whole=field is None)
    version = metadata["version"]
    session.out.done({"name": name, "version": version, "fields": sorted(data)}, f"stored {name}, version {version}")


def _write(session: Session, path: str, request: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    if not whole:
        try:
            return session.client.patch(path, request).data
        except NotFound:
            pass  # nothing there to leave as it is
    return session.client.write(path, request).data


def _fields(name: str, field: str | None, from_file: str, *, json_in: bool, exact: bool) -> dict[str, Any]:
    if json_in:
        if field or (from_file and exact):
            raise InvalidRequest("--json-in reads all fields", "leave --field and --exact out")
        return _json_fields(read_value("Fields as a JSON object: ", from_file))
    field = DEFAULT_FIELD if field is None else field
    no_value(field)
    value = read_value(f"Value of {name}#{parse_field(field)}: ", from_file, exact=exact)
    return {field: _text(value)}


def _json_fields(text: Secret) -> dict[str, Any]:
    try:
        data = json.loads(text.reveal())
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not data:
        raise InvalidRequest(
            "the input is not a JSON object with fields", 'for example {"username": "app", "password": "…"}'
        )
    return {parse_field(each): value for each, value in data.items()}


def _text(value: Secret) -> str:
    try:
        return value.reveal().decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the value is not text in UTF-8", "encode it: base64 FILE | keyhole set NAME") from None


def _options(labels: dict[str, Any]) -> dict[str, Any]:
    names = {"kind": "type", "owner": "owner", "rotate_every": "rotate_every", "cas": "cas"}
    found = {names[key]: value for key, value in labels.items() if key in names and value is not None}
    for when in (labels["expires"], labels["expires_in"]):
        if when is not None:
            found |= expiry_of(when)
    if labels["tags"]:
        found["tags"] = list(labels["tags"])
    return found


@command(
    "get",
    examples="""
    keyhole get stripe/api-key | pbcopy
    keyhole get db/prod#password --reveal
    keyhole get stripe/api-key --version 2
    keyhole get /team/data/stripe/api-key         # of another mount, such as a repo vault
    keyhole get db/prod --json
    """,
)
@click.argument("name", metavar="NAME[#FIELD]", shell_complete=secrets)
@click.option("--version", type=int, metavar="N", help="An older version.")
@click.option("--reveal", is_flag=True, help="Show it on the terminal without asking.")
@click.option("-n", "--no-newline", is_flag=True, help="Print the value alone, without a newline after it.")
@pass_session
def get_command(session: Session, /, *, name: str, version: int | None, reveal: bool, no_newline: bool) -> None:
    """Show a value. Needs the capability read, and is recorded.

    On a terminal it asks first; into a pipe it prints at once. A slash before the name is for a source of services.
    """
    path, field = parse_shown_ref(name)
    mark = "#" in name
    allow_reveal(name, reveal=reveal)
    answer = session.client.read(revealing(path), **({"version": version} if version is not None else {}))
    data, metadata = fields_of(answer.data), answer.data.get("metadata")
    number = metadata.get("version") if isinstance(metadata, dict) else None
    if not answer.found or answer.data.get("data", data) is None:
        raise NotFound(f"version {number} of {path!r} is deleted", f"keyhole history {path}")
    if field not in data and (mark or not session.out.json):
        known = ", ".join(sorted(data)) or "none"
        raise NotFound(f"the secret {path!r} has no field {field!r}; it has: {known}", f"keyhole get '{path}#FIELD'")
    if session.out.json:
        whole = {"data": data} if not mark else {}
        session.out.result({"name": path, "field": field, "value": data.get(field), "version": number} | whole)
        return
    value = data[field] if isinstance(data[field], str) else json.dumps(data[field], ensure_ascii=False)
    if sys.stdout.isatty():
        value = printable(value)
    sys.stdout.write(value if no_newline else value + "\n")


def allow_reveal(name: str, *, reveal: bool) -> None:
    """A terminal may be watched, recorded or shared; a pipe was chosen by whoever reads it."""
    if reveal or not sys.stdout.isatty():
        return
    if not has_terminal():
        raise InvalidRequest("nobody can be asked whether to show the value here", "add --reveal, or use a pipe")
    if not ask_yes(f"Show the value of {printable(name)} on this terminal?"):
        raise PolicyDenied("the value is not shown", "answer y, or add --reveal")
