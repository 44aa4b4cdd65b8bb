"""``notice``: by which channels administrators are told."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.consent import read_value
from keyhole.core.errors import InvalidRequest
from keyhole.core.notice import KINDS
from keyhole.core.path import parse_name


@group("notice", examples="keyhole notice add ops < url.txt\nkeyhole notice test ops\nkeyhole notice list")
def notice() -> None:
    """Channels by which administrators are told: of secrets that expire, rotations that fail, alarms."""


@notice.command(
    "add",
    examples="""
    keyhole notice add ops                                # asks for the URL of a webhook
    keyhole notice add ops --from-file url.txt --kind expiry --kind rotation-failed
    echo 'mailtos://ops:PASSWORD@smtp.example.com?to=ops@example.com' | keyhole notice add mail --apprise
    """,
)
@click.argument("name")
@click.option("--apprise", is_flag=True, help="The URL is one of Apprise's: e-mail, Slack and many more.")
@click.option("--from-file", metavar="FILE", default="", help="Read the URL from a file; of Apprise one a line.")
@click.option("--kind", "kinds", type=click.Choice([*KINDS]), multiple=True, help="Only this kind; may be repeated.")
@click.option("--key-file", metavar="FILE", default="", help="The key that signs messages of a webhook; else made.")
@click.option("--ca", metavar="FILE", type=click.File("r"), help="PEM certificates that alone prove the server.")
@click.option("--allow-address", "allow", multiple=True, metavar="CIDR", help="Reach it although it is private.")
@pass_session
def add(
    session: Session,
    /,
    *,
    name: str,
    apprise: bool,
    from_file: str,
    kinds: tuple[str, ...],
    key_file: str,
    ca: Any,
    allow: tuple[str, ...],
) -> None:
    """Add a channel, or replace one. Its URL is a credential: asked for, read from stdin or from a file.

    It is stored encrypted and never shown again. A webhook gets a key that signs its messages, printed this once. Needs
    sudo.
    """
    urls = _text(read_value("URL: ", from_file)).split("\n")
    urls = [url.strip() for url in urls if url.strip()]
    data: dict[str, Any] = {"kinds": list(kinds), "allow_addresses": list(allow)}
    if apprise:
        if key_file or ca is not None:
            raise InvalidRequest("--key-file and --ca are for webhooks", "leave them out")
        data |= {"type": "apprise", "urls": urls}
    else:
        if len(urls) != 1:
            raise InvalidRequest("a webhook has one URL", "give one line")
        data |= {"type": "webhook", "url": urls[0]}
        if key_file:
            data["key"] = _text(read_value("Key: ", key_file))
        if ca is not None:
            data["ca_pem"] = ca.read()
    made = session.client.write(f"sys/notices/{parse_name(name)}", data).data
    session.out.say(f"notices go to {name} ({made['type']}); try it: keyhole notice test {name}")
    if "key" in made:
        session.out.say("the key that signs its messages, shown this once:")
    session.out.result(made, [made["key"]] if "key" in made else [])


def _text(value: Any) -> str:
    return str(value.reveal().decode("utf-8", "replace"))


@notice.command("list", examples="keyhole notice list\nkeyhole notice list --json")
@pass_session
def list_notices(session: Session, /) -> None:
    """The channels, and how they go."""
    found = [session.client.read(f"sys/notices/{name}").data for name in session.names("sys/notices")]
    rows = [[e["name"], e["type"], e["last_sent"] or "never", e["waiting"], e["error"] or "-"] for e in found]
    head = ["name", "type", "last sent", "waiting", "failure"]
    session.out.table(found, head, rows, empty="nobody is told: keyhole notice add NAME")


@notice.command("test", examples="keyhole notice test ops")
@click.argument("name")
@pass_session
def test(session: Session, /, *, name: str) -> None:
    """Send a message now, and say whether it was taken."""
    done = session.client.write(f"sys/notices/{parse_name(name)}/test", {}).data
    session.out.done(done, f"{name} has taken a message")


@notice.command("days", examples="keyhole notice days 30 7 1\nkeyhole notice days")
@click.argument("days", nargs=-1, type=int)
@pass_session
def days(session: Session, /, *, days: tuple[int, ...]) -> None:
    """Show or set how many days before a date administrators are told."""
    if not days:
        data = session.client.read("sys/notices/config").data
        session.out.result(data, " ".join(map(str, data["days"])) or "only at the date itself")
        return
    data = session.client.write("sys/notices/config", {"days": list(days)}).data
    session.out.done(data, f"administrators are told {', '.join(map(str, data['days']))} days before a date")


@notice.command("rm", examples="keyhole notice rm ops")
@click.argument("name")
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove a channel, with what waits for it."""
    session.client.delete(f"sys/notices/{parse_name(name)}")
    session.out.done({"name": name, "removed": True}, f"{name} is told no more")
