"""``operator``: open and close a vault."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.consent import read_value
from keyhole.cli.copies import backup, restore
from keyhole.cli.fsck import fsck
from keyhole.cli.init import initialise, recovery_options, seal_options
from keyhole.cli.migrate import migrate
from keyhole.cli.rekey import generate_root, rekey
from keyhole.core.errors import InvalidRequest, NotFound, Sealed

SEALED = 6
_SHAMIR = "shamir"  # how the wire format calls the seal with shares


@group("operator", examples="keyhole operator status\nkeyhole operator unseal")
def operator() -> None:
    """Unseal, seal, status, new keys, copies. A local vault is opened by each command that needs it."""


for _command in (rekey, generate_root, migrate, fsck, backup, restore):
    operator.add_command(_command)


@operator.command("init", examples="keyhole operator init --seal passphrase --passphrase-file FILE --json")
@seal_options
@recovery_options
@pass_session
def init(
    session: Session,
    /,
    *,
    seal: str,
    make_keyfile: bool,
    recovery_shares: int | None,
    recovery_threshold: int | None,
) -> None:
    """Make a vault and print its root token; the same as keyhole init."""
    initialise(session, seal, recovery_shares, recovery_threshold, make_keyfile=make_keyfile)


@operator.command("status", examples="keyhole operator status\nkeyhole operator status --json")
@pass_session
def status(session: Session, /) -> int:
    """Whether there is a vault, how it is sealed, and whether a server has it open.

    Exit code 0 if it can be used, 6 if the server is sealed.
    """
    data = session.client.read("sys/seal-status").data
    remote = session.where.remote
    data = {"vault": session.where.location, **data}
    held = "open" if not data["sealed"] else "sealed" if remote else "opened by each command"
    lines = [
        f"vault:       {data['vault']}",
        f"initialized: {'yes' if data['initialized'] else 'no'}",
        f"seal:        {data['type'] or '-'}",
        f"state:       {held}",
    ]
    if data["recovery_seal"]:
        lines.insert(3, f"recovery:    {data['n']} shares, any {data['t']} authorise a rekey or a new root token")
    if data["migration"]:
        lines.append("migration:   the server is set to another seal: keyhole operator unseal --migrate")
    if data["type"] == _SHAMIR:
        lines.insert(3, f"shares:      {data['n']}, any {data['t']} open it; {data['progress']} entered")
    session.out.result(data, lines)
    if not data["initialized"]:
        raise NotFound("there is no vault in this store", "make a vault: keyhole init")
    return SEALED if remote and data["sealed"] else 0


@operator.command(
    "unseal",
    examples="""
    keyhole operator unseal
    keyhole operator unseal --passphrase-file FILE
    keyhole operator unseal < share.txt
    keyhole operator unseal --reset
    keyhole operator unseal --migrate
    """,
)
@click.option("--reset", is_flag=True, help="Forget the shares that were entered so far.")
@click.option("--migrate", "migrating", is_flag=True, help="Give the vault the seal that the server is set to.")
@pass_session
def unseal(session: Session, /, *, reset: bool, migrating: bool) -> None:
    """Open a server's vault with the passphrase, or enter one share of its seal.

    A share is asked for, or read from stdin; the server keeps it until there are enough. A keychain or a file is
    read by the server itself, for who may seal it.
    """
    if not session.where.remote:
        session.client.read("sys/key-status")
        session.out.done({"sealed": False}, "the key opens this vault; each command opens a local vault by itself")
        return
    data = session.client.read("sys/seal-status").data
    if reset:
        data = session.client.write("sys/unseal", {"reset": True}).data
    elif data["sealed"]:
        shares = data["type"] == _SHAMIR or (migrating and data["recovery_seal"])
        body: dict[str, Any] = _key(session, asks=data.get("asks_for", ""), shares=shares)
        try:
            data = session.client.write("sys/unseal", {**body, "migrate": True} if migrating else body).data
        except InvalidRequest as error:
            if shares or "key" not in body:
                raise
            raise Sealed(error.reason, error.hint) from None  # as a local vault says of a wrong passphrase
    if data["type"] != _SHAMIR and not (migrating and data["recovery_seal"]):
        session.out.done({"sealed": data["sealed"]}, f"{session.where.location} is open")
        return
    shown = {name: data[name] for name in ("sealed", "t", "n", "progress", "nonce")}
    still = f"{session.where.location} is sealed: {data['progress']} of {data['t']} shares are entered"
    session.out.done(shown, still if data["sealed"] else f"{session.where.location} is open")


def _key(session: Session, *, asks: str, shares: bool) -> dict[str, str]:
    """What the person has to enter."""
    if shares:
        return {"key": read_value("One share: ").reveal().decode(errors="replace").strip()}
    if not asks:
        return {}
    passphrase = session.passphrase.get(f"{asks}: ")
    if passphrase is None:
        raise Sealed("there is no terminal to ask for the passphrase on", "give --passphrase-file FILE")
    return {"key": passphrase.reveal().decode(errors="surrogateescape")}


@operator.command("rewrap", examples="keyhole operator rewrap\nkeyhole operator rewrap --rotate --org acme")
@click.option("--rotate", is_flag=True, help="Make a new term of the org's key first.")
@pass_session
def rewrap(session: Session, /, *, rotate: bool) -> None:
    """Seal everything of an org under the current term of its key, and let the older terms go.

    It may be cut off at any point and begun again, and everything stays in use meanwhile. Copies of the vault that were
    made before hold the older terms still, but these open nothing that is written from now on.
    """
    if rotate:
        session.client.write("sys/rotate")
    data = session.client.write("sys/rewrap").data
    session.out.done(data, f"sealed {data['rewrapped']} entries again; term {data['term']} is the only one")


@operator.command("seal", examples="keyhole operator seal")
@pass_session
def seal(session: Session, /) -> None:
    """Make a server forget its keys. It refuses everything until somebody unseals it."""
    if not session.where.remote:
        session.out.done({"sealed": True}, "a local vault is open only while a command runs")
        return
    session.client.write("sys/seal")
    session.out.done({"sealed": True}, f"{session.where.location} is sealed")
