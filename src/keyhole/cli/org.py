"""``org``: tenants of a vault."""

from __future__ import annotations

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.versions import confirm
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.identity import ROOT_ORG
from keyhole.core.path import parse_name

EGRESS = click.Choice(["deny", "allow", "log"])
TRIPWIRE = click.Choice(["stop", "revoke", "off"])


@group("org", examples="keyhole org add acme --json\nkeyhole org set --egress log")
def org() -> None:
    """Tenants. Each has its own keys, policies, tokens and CA; the org root has no right inside another."""


@org.command("add", examples="keyhole org add acme --egress deny --json")
@click.argument("name")
@click.option("--egress", type=EGRESS, help="What happens to calls to hosts without a service.")
@pass_session
def add(session: Session, /, *, name: str, egress: str | None) -> None:
    """Make an org, and print the token of its first administrator once."""
    name = parse_name(name)
    data = session.client.write(f"sys/namespaces/{name}", {"egress": egress} if egress else {}).data
    if not session.out.json:
        session.out.say(f"made the org {name}; the token of its administrator:")
    session.out.result(data, str(data["root_token"]))


@org.command("list", examples="keyhole org list")
@pass_session
def list_orgs(session: Session, /) -> None:
    """Names of orgs."""
    try:
        others = [str(name).rstrip("/") for name in session.client.list("sys/namespaces").data["keys"]]
    except NotFound:
        others = []
    names = sorted([*others, ROOT_ORG])
    session.out.result(names, names)


@org.command("show", examples="keyhole org show")
@pass_session
def show(session: Session, /) -> None:
    """Your own org and its settings."""
    data = session.client.read("sys/org").data
    session.out.result(data, (f"{key + ':':<10}{value}" for key, value in data.items()))


@org.command("set", examples="keyhole org set --egress log")
@click.option("--egress", type=EGRESS, help="What happens to calls to hosts without a service.")
@click.option("--tripwire", type=TRIPWIRE, help="What happens when a request carries what must not leave.")
@pass_session
def set_org(session: Session, /, **settings: str | None) -> None:
    """Change settings of your own org."""
    wanted = {name: value for name, value in settings.items() if value}
    if not wanted:
        raise InvalidRequest("no setting is named", "say --egress or --tripwire")
    data = session.client.write("sys/org", wanted).data
    said = " and ".join(f"{name} {data[name]}" for name in wanted)
    session.out.done(data, f"the org {data['name']} has {said}")


@org.command("rm", examples="keyhole org rm acme --yes")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def remove(session: Session, /, *, name: str, yes: bool) -> None:
    """Remove an org with everything in it, for good: its keys are destroyed."""
    name = parse_name(name)
    session.client.read(f"sys/namespaces/{name}")
    confirm(f"Remove the org {name} with everything in it for good?", yes=yes)
    session.client.delete(f"sys/namespaces/{name}")
    session.out.done({"name": name, "removed": True}, f"removed the org {name}")
