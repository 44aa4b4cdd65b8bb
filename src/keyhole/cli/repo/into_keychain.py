"""``repo into-keychain``, and ``pull --into-keychain``: values for other programs of this user, in no file."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.asking import asked_of
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.keepers.keychain import Keychain
from keyhole.repo.into_keychain import SERVICE, keep_values
from keyhole.repo.reads import release

F = TypeVar("F", bound=Callable[..., Any])
_INSTEAD = "read one value at a time: keyhole repo get"


@repo.command(
    "into-keychain",
    examples="""
    keyhole repo into-keychain stripe
    secret-tool lookup service keyhole-repo username VAULT/stripe/api-key
    """,
)
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@place_options
@pass_session
def into_keychain(session: Session, /, *, groups: tuple[str, ...], directory: str, key_file: str) -> None:
    """Put what you can open into the keychain of your system, and take out what you cannot open any more.

    An entry has the service keyhole-repo and the user name VAULT/GROUP/NAME, where VAULT is the vault's id. No value is
    shown or written to a file, and each is recorded as read (repo reads).
    """
    data, lines = keep_in_keychain(session, Place(session, directory, key_file), groups)
    session.out.done(data, "\n".join(lines))


def keychain_options(function: F) -> F:
    """``--into-keychain`` and ``--group`` of ``pull``."""
    text = "Then put what you can open into the keychain of your system."
    flag = click.option("--into-keychain", is_flag=True, help=text)
    group = click.option("--group", "groups", multiple=True, metavar="GROUP", help="With --into-keychain: only of it.")

    @functools.wraps(function)
    def checked(*words: Any, **options: Any) -> Any:
        if options["groups"] and not options["into_keychain"]:
            raise InvalidRequest("--group goes with --into-keychain", "a pull takes the whole vault")
        return function(*words, **options)

    return cast("F", flag(group(checked)))


def done(
    session: Session, place: Place, data: dict[str, Any], said: str, *, into_keychain: bool, groups: tuple[str, ...]
) -> None:
    """Say what a pull has done, after the keychain has got its part where that was asked for."""
    if into_keychain:
        try:
            data["keychain"], lines = keep_in_keychain(session, place, groups)
        except KeyholeError:
            session.out.say(said)  # that much is done
            raise
        said = "\n".join([said, *lines])
    session.out.done(data, said)


def keep_in_keychain(session: Session, place: Place, groups: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Do it; gives what ``--json`` shows, and what is said. Raises as ``keep_values``."""
    opened, identity = place.open(), place.identity()
    keychain = Keychain(_INSTEAD, asked_of(session).keychain)
    kept = keep_values(
        opened,
        identity,
        groups,
        keychain,
        lambda name: release(opened, identity, name, how="into-keychain", environ=os.environ),
    )
    for name, why in kept.left.items():
        session.out.warn(f"{name} is not in the keychain: {why}")
    data = {
        "service": SERVICE,
        "vault": kept.vault,
        "put": kept.put,
        "same": kept.same,
        "taken": kept.taken,
        "left": sorted(kept.left),
    }
    lines = [f"put into the keychain: {kept.vault}/{name}" for name in kept.put]
    lines += [f"taken out of the keychain: {kept.vault}/{name}" for name in kept.taken]
    return data, lines or ["the keychain has what you can open"]
