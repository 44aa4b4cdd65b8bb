"""``init``: make a vault."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import has_terminal
from keyhole.core.errors import Conflict, InvalidRequest, Sealed
from keyhole.core.value import Secret

_F = TypeVar("_F", bound=Callable[..., Any])
_SEAL_HELP = "passphrase, keychain, keyfile:PATH, age:IDENTITY, shares:5:3, or a key kept elsewhere: see docs/seal.md."


def seal_options(function: _F) -> _F:
    """Options that name a new seal."""
    option = click.option("--seal", metavar="SEAL", default="", help=_SEAL_HELP)
    text = "Make the key file of --seal keyfile:PATH; it must not exist."
    return option(click.option("--make-keyfile", is_flag=True, help=text)(function))


def recovery_options(function: _F) -> _F:
    """Options for recovery shares."""
    first = click.option("--recovery-shares", type=int, metavar="N", help="Shares that open nothing and authorise.")
    return first(click.option("--recovery-threshold", type=int, metavar="N", help="How many are needed.")(function))


@command(
    "init",
    examples="""
    keyhole init
    keyhole init --seal passphrase --passphrase-file /run/keys/pass --json
    keyhole init --vault sqlite:/var/lib/keyhole/vault.db --seal keyfile:/etc/keyhole/key --make-keyfile
    keyhole init --vault sqlite:/var/lib/keyhole/vault.db --seal age:/etc/keyhole/identity.txt
    keyhole init --vault sqlite:/var/lib/keyhole/vault.db --seal shares:5:3
    """,
)
@seal_options
@recovery_options
@pass_session
def init_command(
    session: Session,
    /,
    *,
    seal: str,
    make_keyfile: bool,
    recovery_shares: int | None,
    recovery_threshold: int | None,
) -> None:
    """Make a vault and print its root token.

    The seal says who can open it: your passphrase, your system's keychain, a key file, an age identity, any 3 of 5
    people, each with a share of the key that is shown now and never again, or whoever may use a key in a token
    (pkcs11:), of a cloud (awskms:, gcpkms:, azurekms:) or of another vault (transit:). Without --seal it is the
    keychain where one is unlocked, else a passphrase. The root token may do everything; keep it where nobody finds it,
    or do without: whoever can open a local vault is its owner.
    """
    initialise(session, seal, recovery_shares, recovery_threshold, make_keyfile=make_keyfile)


def check_new_seal(
    seal: str, recovery_shares: int | None, recovery_threshold: int | None, *, make_keyfile: bool
) -> tuple[int, int]:
    """How many recovery shares a new seal gets, and how many of them are needed; makes its key file if asked to."""
    from keyhole.vault.sealing import NO_RECOVERY, default_recovery  # noqa: PLC0415  # few commands need it

    kind, _, rest = seal.partition(":")
    if make_keyfile:
        _make_keyfile(kind, rest)
    if recovery_shares is None and recovery_threshold is None:
        return default_recovery(seal)
    recovery = (recovery_shares or 0, recovery_threshold or 0)
    if recovery != NO_RECOVERY:
        from keyhole.crypto.shamir import check_quorum  # noqa: PLC0415  # the same

        check_quorum(*recovery)
    return recovery


def initialise(
    session: Session,
    seal: str = "",
    recovery_shares: int | None = None,
    recovery_threshold: int | None = None,
    *,
    make_keyfile: bool = False,
) -> str:
    """Make the vault that the session means, say so, and give its root token.

    Raises:
        Conflict: there is one already.
    """
    where = session.where
    shares: list[str] = []
    recovery = False
    if where.remote:
        body: dict[str, Any] = {"seal": seal or "passphrase"}
        if body["seal"] == "passphrase":
            body["passphrase"] = session.passphrase.get_new().reveal().decode(errors="surrogateescape")
        numbers = {"recovery_shares": recovery_shares, "recovery_threshold": recovery_threshold}
        body |= {name: number for name, number in numbers.items() if number is not None}
        made = session.client.write("sys/init", body).data
        recovery = "recovery_keys_base64" in made
        token = str(made["root_token"])
        shares = [str(share) for share in made["recovery_keys_base64" if recovery else "keys_base64"]]
    else:
        seal = _chosen(session, seal)
        numbers_ = check_new_seal(seal, recovery_shares, recovery_threshold, make_keyfile=False)
        recovery = numbers_[0] > 0
        token = make_local(session, where.location, seal, make_keyfile=make_keyfile, shares=shares, recovery=numbers_)
    if session.out.json:
        name = "recovery_keys_base64" if recovery else "keys_base64"
        session.out.result({"root_token": token, **({name: shares} if shares else {})})
    else:
        if shares:
            kind = "its recovery shares" if recovery else "the shares of its seal"
            session.out.say(f"{kind}, shown this once; give each to another person:")
            session.out.result({}, shares)
        session.out.say(f"made a vault in {where.location}; its root token:")
        session.out.result({}, token)
    return token


def make_local(
    session: Session,
    location: str,
    seal: str = "",
    *,
    make_keyfile: bool = False,
    shares: list[str] | None = None,
    recovery: tuple[int, int] = (0, 0),
) -> str:
    """Make a vault on this machine, and give its root token; ``shares`` is filled with those that are dealt out.

    Raises:
        Conflict: there is one already.
        InvalidRequest: the seal needs something that is not given.
    """
    from keyhole.cli.local import create_vault, has_vault  # noqa: PLC0415  # a server's vault is made by the server
    from keyhole.seals import asks_for, file_of  # noqa: PLC0415  # the same

    seal = _chosen(session, seal)
    if asyncio.run(has_vault(location)):
        raise Conflict(f"there is a vault in {location} already", "use it, or name another place with --vault")
    kind, _, rest = seal.partition(":")
    if make_keyfile:
        _make_keyfile(kind, rest)
    elif (file := file_of(seal)) and not os.path.lexists(file):
        made = "--make-keyfile" if kind == "keyfile" else f"age-keygen -o {file}"
        what = "key file" if kind == "keyfile" else "identity file"
        raise Sealed(f"there is no {what} {file}", f"mount it, or have one made: {made}")
    asks = asks_for(seal)
    passphrase = (
        None
        if not asks
        else session.passphrase.get_new()
        if kind == "passphrase"
        else session.passphrase.get(f"{asks}: ")
    )
    if kind == "passphrase" and not session.passphrase.given and has_terminal():
        session.out.say("Nobody can recover this passphrase for you.")

    dealt: list[Secret] = []
    hand_out = dealt.extend if shares is not None else None
    token = asyncio.run(create_vault(location, seal, passphrase, hand_out=hand_out, recovery=recovery))
    if shares is not None:
        shares.extend(share.reveal().decode() for share in dealt)
    return token


def _chosen(session: Session, seal: str) -> str:
    """The seal of a new vault of this machine."""
    from keyhole import seals  # noqa: PLC0415  # as above

    seal = seal or os.environ.get("KEYHOLE_SEAL", "")
    return seal or ("passphrase" if session.passphrase.given else seals.default_seal())


def _make_keyfile(kind: str, path: str) -> None:
    from keyhole.seals.keyfile import make_keyfile  # noqa: PLC0415  # as above

    if kind != "keyfile" or not path:
        raise InvalidRequest("--make-keyfile goes with --seal keyfile:PATH", "name the file to be made")
    make_keyfile(Path(path))
