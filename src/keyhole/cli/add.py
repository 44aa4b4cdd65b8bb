"""``add``: a known API's key stored, bound to its hosts, and granted, in one step."""

from __future__ import annotations

import click

from keyhole.catalog import Catalog, CatalogEntry
from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.bindings import bind, ensure_vault, grant, other_bindings
from keyhole.cli.consent import read_value
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.path import DEFAULT_FIELD, parse_name
from keyhole.core.value import Secret


@command(
    "add",
    examples="""
    keyhole add stripe                           # asks for the key, and does not show it
    keyhole add github --agent coder < token.txt
    keyhole add                                  # the names that are known
    """,
)
@click.argument("name", default="")
@click.option("--agent", default=DEFAULT_AGENT, show_default=True, help="Who may use it; made where there is none.")
@click.option("--from-file", metavar="FILE", default="", help="Read the key from a file.")
@pass_session
def add_command(session: Session, /, *, name: str, agent: str, from_file: str) -> None:
    """Store the key of a known API, bind it to the API's hosts, and let an agent use it.

    The first time it makes the local vault: its master key lies in the system's keychain where one is unlocked, else a
    passphrase opens it. Without a name it lists what the catalog knows. For anything else: keyhole set, keyhole
    service add, keyhole grant.
    """
    from keyhole.config import home  # noqa: PLC0415  # --help needs no paths

    catalog = Catalog.load(home() / "catalog")
    if not name:
        entries = [catalog.get(each) for each in catalog.names()]
        rows = [(e.name, e.title, ", ".join(e.variables), e.services[0].hosts[0]) for e in entries]
        known = [{"name": e.name, "title": e.title, "variables": list(e.variables)} for e in entries]
        session.out.table(known, ("name", "what", "variables", "host"), rows)
        return
    entry = catalog.get(name)
    agent = parse_name(agent)
    ensure_vault(session)
    secret = f"{entry.name}/api-key"
    _refuse_other_bindings(session, entry, secret)
    session.out.say(f"Keys of {entry.title} are made at {entry.key_page}")
    version = _store(session, entry, secret, read_value(f"The key for {entry.title}: ", from_file))
    made = bind(session, entry, secret)
    grant(session, agent, made)
    hosts = [host for service in entry.services for host in service.hosts]
    data = {"secret": secret, "version": version, "services": made, "agent": agent, "variables": list(entry.variables)}
    session.out.done(
        data,
        f"stored {secret}, version {version}\n"
        f"bound to {', '.join(hosts)}: service {', '.join(made)}\n"
        f"granted to the agent {agent}, who finds a placeholder in {', '.join(entry.variables)}\n"
        f"now: keyhole run{'' if agent == DEFAULT_AGENT else f' --agent {agent}'} -- COMMAND",
    )


def _refuse_other_bindings(session: Session, entry: CatalogEntry, secret: str) -> None:
    """A service of that name that lends another secret is the user's own; nothing is changed then."""
    for name, bound in other_bindings(session, entry, secret).items():
        raise Conflict(
            f"there is a service {name!r} already, and it lends {bound}",
            f"remove it with: keyhole service rm {name}; or set the key with: keyhole set",
        )


def _store(session: Session, entry: CatalogEntry, secret: str, value: Secret) -> int:
    try:
        text = value.reveal().decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the key is not text", "paste the key itself") from None
    if not entry.looks_like_a_key(text):
        session.out.warn(f"this does not look like a key of {entry.title}; it is stored all the same")
    body = {"data": {DEFAULT_FIELD: text}, "options": {"type": "api-key"}}
    return int(session.client.write(f"secret/data/{secret}", body).data["version"])
