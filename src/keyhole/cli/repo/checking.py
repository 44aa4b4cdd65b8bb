"""``repo check``."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.repo.checking import check

VIOLATED = 1


@repo.command("check", examples="keyhole repo check\nkeyhole repo check --deep --json")
@click.option("--deep", is_flag=True, help="Open every secret and every escrowed key with your own key.")
@place_options
@pass_session
def check_command(session: Session, /, *, deep: bool, directory: str, key_file: str) -> int:
    """Look at the whole vault. Exit code 1 when something has to be put right."""
    place = Place(session, directory, key_file)
    found = check(place.open(), datetime.now(UTC), place.identity() if deep else None)
    if any("is due for" not in each for each in found.errors):
        session.out.say("next: keyhole operator fsck finishes what a killed command left, and looks at git as well")
    lines = [*(f"error: {each}" for each in found.errors), *(f"warning: {each}" for each in found.warnings)]
    session.out.result({"errors": found.errors, "warnings": found.warnings}, lines or ["nothing is wrong"])
    return VIOLATED if found.errors else 0
