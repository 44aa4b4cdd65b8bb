"""``repo adopt``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.cli.versions import confirm
from keyhole.core.errors import PolicyDenied
from keyhole.repo.adopting import adopt, review


@repo.command("adopt", examples="keyhole repo adopt\nkeyhole repo adopt --yes --json")
@click.option("--owner", default="owner", metavar="NAME", help="What you are called, where nothing is signed yet.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@place_options
@pass_session
def adopt_command(session: Session, /, *, owner: str, yes: bool, directory: str, key_file: str) -> None:
    """Take over a vault, or changes in it, that something made which signs nothing. Shows it first, and asks."""
    place = Place(session, directory, key_file)
    opened = place.open()
    found = review(opened)
    data = {"agents": found.agents, "removed": found.removed, "secrets": found.secrets, "gone": found.gone}
    if found.empty and opened.signed:
        session.out.done({**data, "adopted": False}, "all of it is signed already")
        return
    for what, names in data.items():
        for name in names:
            session.out.say(f"{what}: {name}")
    for note in found.notes:
        session.out.warn(note)
    if found.agents and opened.signed and not yes and not sys.stdin.isatty():
        raise PolicyDenied("nobody is here to look at who would read more", "look at the agents above, then: --yes")
    confirm("Sign all of this as it is?", yes=yes)
    change = place.sign(lambda now, identity, again: adopt(again, identity, owner, now), datetime.now(UTC))
    session.out.done({**data, "adopted": True, "due": list(change.due)}, "signed what is there")
