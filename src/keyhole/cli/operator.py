"""``operator``: open and close a vault."""

from __future__ import annotations

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.consent import read_value
from keyhole.cli.init import initialise
from keyhole.core.errors import NotFound, Sealed

SEALED = 6
_SHAMIR = "shamir"  # how the wire format calls the seal with shares


@group("operator", examples="keyhole operator status\nkeyhole operator unseal")
def operator() -> None:
    """Unseal, seal, status. A local vault is opened by each command that needs it."""


@operator.command("init", examples="keyhole operator init --seal passphrase --passphrase-file FILE --json")
@click.option("--seal", metavar="SEAL", default="", help="passphrase, keychain, keyfile:PATH or shares:5:3.")
@click.option("--make-keyfile", is_flag=True, help="Make the key file of --seal keyfile:PATH; it must not exist.")
@pass_session
def init(session: Session, /, *, seal: str, make_keyfile: bool) -> None:
    """Make a vault and print its root token; the same as keyhole init."""
    initialise(session, seal, make_keyfile=make_keyfile)


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
    """,
)
@click.option("--reset", is_flag=True, help="Forget the shares that were entered so far.")
@pass_session
def unseal(session: Session, /, *, reset: bool) -> None:
    """Open a server's vault with the passphrase, or enter one share of its seal.

    A share is asked for, or read from stdin; the server keeps it until there are enough. A keychain or a key file is
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
        data = session.client.write("sys/unseal", _key(session, data["type"])).data
    if data["type"] != _SHAMIR:
        session.out.done({"sealed": data["sealed"]}, f"{session.where.location} is open")
        return
    shown = {name: data[name] for name in ("sealed", "t", "n", "progress", "nonce")}
    still = f"{session.where.location} is sealed: {data['progress']} of {data['t']} shares are entered"
    session.out.done(shown, still if data["sealed"] else f"{session.where.location} is open")


def _key(session: Session, kind: str) -> dict[str, str]:
    """What opens a seal of this kind, from the person."""
    if kind == _SHAMIR:
        return {"key": read_value("One share: ").reveal().decode(errors="replace").strip()}
    if kind != "passphrase":
        return {}
    passphrase = session.passphrase.get()
    if passphrase is None:
        raise Sealed("there is no terminal to ask for the passphrase on", "give --passphrase-file FILE")
    return {"key": passphrase.reveal().decode(errors="surrogateescape")}


@operator.command("seal", examples="keyhole operator seal")
@pass_session
def seal(session: Session, /) -> None:
    """Make a server forget its keys. It refuses everything until somebody unseals it."""
    if not session.where.remote:
        session.out.done({"sealed": True}, "a local vault is open only while a command runs")
        return
    session.client.write("sys/seal")
    session.out.done({"sealed": True}, f"{session.where.location} is sealed")
