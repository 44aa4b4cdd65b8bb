"""``init``: make a vault."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import has_terminal
from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.value import Secret


@command(
    "init",
    examples="""
    keyhole init
    keyhole init --seal passphrase --passphrase-file /run/keys/pass --json
    keyhole init --vault sqlite:/var/lib/keyhole/vault.db --seal keyfile:/etc/keyhole/key --make-keyfile
    keyhole init --vault sqlite:/var/lib/keyhole/vault.db --seal shares:5:3
    """,
)
@click.option("--seal", metavar="SEAL", default="", help="passphrase, keychain, keyfile:PATH or shares:5:3.")
@click.option("--make-keyfile", is_flag=True, help="Make the key file of --seal keyfile:PATH; it must not exist.")
@pass_session
def init_command(session: Session, /, *, seal: str, make_keyfile: bool) -> None:
    """Make a vault and print its root token.

    The seal says who can open it: your passphrase, your system's keychain, a key file, or any 3 of 5 people, each with
    a share of the key that is shown now and never again. Without --seal it is the
    keychain where one is unlocked, else a passphrase. The root token may do everything; keep it where nobody finds it,
    or do without: whoever can open a local vault is its owner.
    """
    initialise(session, seal, make_keyfile=make_keyfile)


def initialise(session: Session, seal: str = "", *, make_keyfile: bool = False) -> str:
    """Make the vault that the session means, say so, and give its root token.

    Raises:
        Conflict: there is one already.
    """
    where = session.where
    shares: list[str] = []
    if where.remote:
        body = {"seal": seal or "passphrase"}
        if body["seal"] == "passphrase":
            body["passphrase"] = session.passphrase.get_new().reveal().decode(errors="surrogateescape")
        made = session.client.write("sys/init", body).data
        token, shares = str(made["root_token"]), [str(share) for share in made["keys_base64"]]
    else:
        token = make_local(session, where.location, seal, make_keyfile=make_keyfile, shares=shares)
    if session.out.json:
        session.out.result({"root_token": token, **({"keys_base64": shares} if shares else {})})
    else:
        if shares:
            session.out.say("the shares of its seal, shown this once; give each to another person:")
            session.out.result({}, shares)
        session.out.say(f"made a vault in {where.location}; its root token:")
        session.out.result({}, token)
    return token


def make_local(
    session: Session, location: str, seal: str = "", *, make_keyfile: bool = False, shares: list[str] | None = None
) -> str:
    """Make a vault on this machine, and give its root token; ``shares`` is filled with those of its seal.

    Raises:
        Conflict: there is one already.
        InvalidRequest: the seal needs something that is not given.
    """
    from keyhole import seals  # noqa: PLC0415  # a server's vault is made by the server
    from keyhole.cli.local import create_vault, has_vault  # noqa: PLC0415  # the same

    seal = seal or os.environ.get("KEYHOLE_SEAL", "")
    if not seal:
        seal = "passphrase" if session.passphrase.given else seals.default_seal()
    if asyncio.run(has_vault(location)):
        raise Conflict(f"there is a vault in {location} already", "use it, or name another place with --vault")
    kind, _, rest = seal.partition(":")
    if make_keyfile:
        _make_keyfile(kind, rest)
    passphrase = session.passphrase.get_new() if kind == "passphrase" else None
    if kind == "passphrase" and not session.passphrase.given and has_terminal():
        session.out.say("Nobody can recover this passphrase for you.")

    dealt: list[Secret] = []
    hand_out = dealt.extend if shares is not None else None
    token = asyncio.run(create_vault(location, seal, passphrase, hand_out=hand_out))
    if shares is not None:
        shares.extend(share.reveal().decode() for share in dealt)
    return token


def _make_keyfile(kind: str, path: str) -> None:
    from keyhole.seals.keyfile import make_keyfile  # noqa: PLC0415  # as above

    if kind != "keyfile" or not path:
        raise InvalidRequest("--make-keyfile goes with --seal keyfile:PATH", "name the file to be made")
    make_keyfile(Path(path))
