"""``add``: a known API's key stored, bound to its hosts, and granted, in one step."""

from __future__ import annotations

import json
import sys

import click

from keyhole.catalog import Catalog, CatalogEntry
from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.bindings import bind, ensure_vault, grant, other_bindings
from keyhole.cli.catalog import complete_name, list_entries, own_folder
from keyhole.cli.consent import ask_hidden, ask_text, read_value
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.names import agents
from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.path import DEFAULT_FIELD, parse_name
from keyhole.core.value import Secret


@command(
    "add",
    examples="""
    keyhole add stripe                           # asks for the key, and does not show it
    keyhole add github --agent coder < token.txt
    keyhole add atlassian --host acme.atlassian.net --set email=me@acme.com
    keyhole add                                  # the names that are known
    """,
)
@click.argument("name", default="", shell_complete=complete_name)
@click.option(
    "--agent",
    shell_complete=agents,
    default=DEFAULT_AGENT,
    show_default=True,
    help="Who may use it; made where there is none.",
)
@click.option("--from-file", metavar="FILE", default="", help="Read the key from a file.")
@click.option("--host", metavar="HOST", default="", help="Your site, region or server, for APIs that have several.")
@click.option("--set", "said", multiple=True, metavar="NAME=TEXT", help="Other things that are asked for; no secrets.")
@pass_session
def add_command(
    session: Session, /, *, name: str, agent: str, from_file: str, host: str, said: tuple[str, ...]
) -> None:
    """Store the key of a known API, bind it to the API's hosts, and let an agent use it.

    The first time it makes the local vault: its master key lies in the system's keychain where one is unlocked, else a
    passphrase opens it. What the API has besides for each account (a site, a region, an account's id) is asked for, or
    given with --host and --set. A credential of several fields is given as a JSON object where it is not typed.
    Without a name it lists what the catalog knows. For anything else: keyhole set, keyhole service add, keyhole grant.
    """
    catalog = Catalog.load(own_folder())
    if not name:
        list_entries(session, catalog)
        return
    entry = _filled(session, catalog.get(name), host, said)
    agent = parse_name(agent)
    ensure_vault(session)
    secret = entry.secret
    _refuse_other_bindings(session, entry, secret)
    session.out.say(f"Keys of {entry.title} are made at {entry.key_page}")
    if entry.note:
        session.out.say(entry.note)
    values = _values(entry, from_file)
    version = _store(session, entry, secret, values)
    made = bind(session, entry, secret, without=tuple(field for field in entry.keys if field not in values))
    grant(session, agent, made)
    hosts = [host for service in entry.services for host in service.hosts]
    data = {"secret": secret, "version": version, "services": made, "agent": agent, "variables": list(entry.variables)}
    finds = f", who finds a placeholder in {', '.join(entry.variables)}" if entry.variables else ""
    session.out.done(
        data,
        f"stored {secret}, version {version}\n"
        f"bound to {_some(hosts)}: service {', '.join(made)}\n"
        f"granted to the agent {agent}{finds}\n"
        f"now: keyhole run{'' if agent == DEFAULT_AGENT else f' --agent {agent}'} -- COMMAND\n"
        f"does the API take the key? keyhole service test {entry.services[0].name}",
    )


def _some(hosts: list[str], most: int = 4) -> str:
    return ", ".join(hosts[:most]) + (f" and {len(hosts) - most} more" if len(hosts) > most else "")


def _filled(session: Session, entry: CatalogEntry, host: str, said: tuple[str, ...]) -> CatalogEntry:
    """The entry for the user's account: what the options say, then what the person answers, then the defaults."""
    answers = {}
    for text in said:
        name, mark, answer = text.partition("=")
        if not mark:
            raise InvalidRequest("--set is not a name and a text", "for example --set email=me@example.com")
        answers[name] = answer
    if host:
        answers |= {_blank_of_host(entry): host}
    person = sys.stdin is not None and sys.stdin.isatty()
    for blank in entry.blanks:
        if blank.name in answers:
            continue
        if person and not blank.default and not blank.optional:
            of = f" ({', '.join(blank.choices)})" if blank.choices else ""
            answers[blank.name] = ask_text(f"{blank.ask}{of}: ")
        elif blank.default or blank.optional:
            option = "--host" if entry.hosts_with(blank) else f"--set {blank.name}="
            session.out.say(f"{blank.ask}: {blank.default or 'none'}; say another with {option}")
    return entry.fill(entry.answers(answers))


def _blank_of_host(entry: CatalogEntry) -> str:
    for blank in entry.blanks:
        if entry.hosts_with(blank):
            return blank.name
    raise InvalidRequest(
        f"the hosts of {entry.title} are the same for everybody", "for another host: keyhole service add NAME --host …"
    )


def _refuse_other_bindings(session: Session, entry: CatalogEntry, secret: str) -> None:
    """A service of that name that lends another secret is the user's own; nothing is changed then."""
    for name, bound in other_bindings(session, entry, secret).items():
        raise Conflict(
            f"there is a service {name!r} already, and it lends {bound}",
            f"remove it with: keyhole service rm {name}; or set the key with: keyhole set",
        )


def _values(entry: CatalogEntry, from_file: str) -> dict[str, str]:
    """The key, or the fields of the credential: typed one by one, or read as a JSON object."""
    if DEFAULT_FIELD in entry.keys:
        return {DEFAULT_FIELD: _text(read_value(f"The key for {entry.title}: ", from_file))}
    if not from_file and sys.stdin is not None and sys.stdin.isatty():
        typed = {}
        for field, shape in entry.keys.items():
            more = ", or nothing" if shape.optional else ""
            typed[field] = _text(ask_hidden(f"{entry.title}, {shape.title or field}{more}: "))
        return _complete(entry, typed)
    try:
        data = json.loads(_text(read_value("", from_file)))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise InvalidRequest(
            f"the credential of {entry.title} has several fields, and what was given is no JSON object of texts",
            f'give {{"{next(iter(entry.keys))}": "…", …}}, or type it on a terminal',
        )
    return _complete(entry, data)


def _complete(entry: CatalogEntry, data: dict[str, str]) -> dict[str, str]:
    given = {field: value.strip() for field, value in data.items() if value.strip()}
    missing = [field for field, shape in entry.keys.items() if field not in given and not shape.optional]
    if missing or given.keys() - entry.keys.keys():
        raise InvalidRequest(
            f"{missing[0]} is missing" if missing else "there is a field too many (not shown, it may be a secret)",
            f"the fields are {', '.join(entry.keys)}",
        )
    return given


def _text(value: Secret) -> str:
    try:
        return value.reveal().decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the key is not text", "paste the key itself") from None


def _store(session: Session, entry: CatalogEntry, secret: str, values: dict[str, str]) -> int:
    for field, text in values.items():
        if not entry.looks_like_a_key(text, field):
            what = "a key" if field == DEFAULT_FIELD else entry.keys[field].title or field
            session.out.warn(f"this does not look like {what} of {entry.title}; it is stored all the same")
    body = {"data": values, "options": {"type": "api-key"}}
    return int(session.client.write(f"secret/data/{secret}", body).data["version"])
