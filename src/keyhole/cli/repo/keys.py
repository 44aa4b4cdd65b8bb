"""``repo key``: where your key is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.consent import PassphraseSource
from keyhole.cli.repo.asking import New, asked_of
from keyhole.cli.repo.noun import repo
from keyhole.core.errors import Conflict, KeyholeError
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo import kept, keys
from keyhole.repo.kept import KEYCHAIN

IN_HELP = "file, passphrase, keychain, keychain:NAME, or pkcs11:URI of a token's key."
_SAID = {"file": "in a file", "passphrase": "under a passphrase", "keychain": "in the keychain"}
_CANNOT = "it cannot sign, so its holder is a reader"


@group(
    "key",
    examples="""
    keyhole repo key new --in keychain
    keyhole repo key show
    keyhole repo key move --in passphrase
    keyhole repo key list
    """,
)
def key() -> None:
    """Where your key is kept: in a file, under a passphrase, in the keychain of your system, or sealed by a token."""


repo.add_command(key)


@key.command(
    "new",
    examples="""
    keyhole repo key new --in keychain
    keyhole repo key new --in 'pkcs11:token=me;object=keyhole?module-path=/usr/lib/softhsm/libsofthsm2.so'
    """,
)
@click.option("--in", "where", default="file", metavar="PLACE", help=IN_HELP)
@click.option("--to", default="", metavar="FILE", help="The key's file; ~/.agent-vault/owner.key unless said.")
@pass_session
def new(session: Session, /, *, where: str, to: str) -> None:
    """Make a key. Its file holds it, or says where it is; one that is there is never written over."""
    path = Path(to) if to else keys.owner_file(os.environ)
    identity = make_key(session, path, where)
    data = {"file": str(path), "in": where, **public_of(identity)}
    session.out.done(data, f"made your key, {said_of(where)}; its file is {path}")
    if where == "file":
        session.out.say("keep a copy of it where you keep such things")


def make_key(session: Session, path: Path, where: str) -> Identity:
    """A new key in a new file, kept where the words say. Raises ``Conflict`` when anything is there."""
    identity = age.generate()
    keys.make(path, identity, _named(where, path), asked_of(session), New(session.passphrase))
    return identity


def _named(where: str, path: Path) -> str:
    """The keychain's entry has the name of the file, such as ``owner`` or that of an agent."""
    return f"{KEYCHAIN}{path.stem}" if where == "keychain" else where


def use_or_make(session: Session, path: Path, where: str) -> tuple[Identity, bool]:
    """The key of a file and whether it was made now; ``where`` is empty for wherever it is.

    Raises:
        Conflict: it is there already, and kept elsewhere.
    """
    if not path.exists():
        return make_key(session, path, where or "file"), True
    data = keys.read(path)
    if where and where.partition(":")[0] != kept.form_of(data):
        raise Conflict(f"your key is there already: {path}", f"keyhole repo key move --in {where.partition(':')[0]}")
    return kept.open_kept(data, asked_of(session)), False


def said_of(where: str) -> str:
    """A place in words."""
    return _SAID.get(where.partition(":")[0], "sealed by a token")


def public_of(identity: Identity) -> dict[str, Any]:
    """What others may know of a key; ``sign`` is empty for one that cannot."""
    return {"recipient": identity.recipient.text, "sign": identity.signing.public.hex() if identity.signs else ""}


@key.command("show", examples="keyhole repo key show\nkeyhole repo key show --key ~/.ssh/id_ed25519")
@click.option("--key", "key_file", default="", metavar="PLACE", help="Your key; else KEYHOLE_REPO_KEY.")
@pass_session
def show(session: Session, /, *, key_file: str) -> None:
    """The public part of your key, where it is, and whether it opens by itself. Never the key."""
    place = keys.place_of(os.environ, key_file)
    identity = keys.find(os.environ, key_file, asked_of(session))
    form, alone = _form(place)
    data = {"place": place, "in": form, "unattended": alone, **public_of(identity)}
    lines = [
        f"key:        {place} ({form})",
        f"recipient:  {data['recipient']}",
        f"sign:       {data['sign'] or _CANNOT}",
        f"opens:      {'by itself' if alone else 'when somebody enters something'}",
    ]
    session.out.result(data, lines)


@key.command(
    "move",
    examples="""
    keyhole repo key move --in keychain
    keyhole repo key move --in passphrase --key ~/.agent-vault/agents/coder.key
    """,
)
@click.option("--in", "where", required=True, metavar="PLACE", help=IN_HELP)
@click.option("--key", "key_file", default="", metavar="FILE", help="Its file; else your own.")
@click.option("--new-passphrase-file", metavar="FILE", default="", help="First line: the new passphrase, or PIN.")
@pass_session
def move(session: Session, /, *, where: str, key_file: str, new_passphrase_file: str) -> None:
    """Keep a key in another place. It is read back from there and compared before the old place is let go."""
    path = Path(keys.place_of(os.environ, key_file))
    before = keys.read(path)
    source = session.passphrase
    if new_passphrase_file or not kept.opens_unattended(before):
        source = PassphraseSource()
        source.file = new_passphrase_file
    identity = keys.move(path, _named(where, path), asked_of(session), New(source))
    data = {"file": str(path), "in": where, **public_of(identity)}
    session.out.done(data, f"the key {path} is {said_of(where)} now")
    if kept.form_of(before) is kept.Form.CLEAR and where != "file":
        session.out.say("it lay on the disk in clear before: copies of that file, and backups, still open everything")


@key.command("list", examples="keyhole repo key list --json")
@pass_session
def list_keys(session: Session, /) -> None:
    """The key files of this user, and where each of their keys is. Asks nobody."""
    folder = keys.folder(os.environ)
    found = []
    for path in [*sorted(folder.glob("*.key")), *sorted(folder.glob("agents/*.key"))]:
        each: dict[str, Any] = {"file": str(path), "in": "", "recipient": "", "wrong": ""}
        try:
            data = keys.read(path)
            each["in"] = kept.form_of(data).value
            each["recipient"] = kept.public_of(data)
        except KeyholeError as error:
            each["wrong"] = error.reason
        found.append(each)
    rows = [[each["file"], each["in"], each["wrong"] or each["recipient"] or "(not to be seen)"] for each in found]
    session.out.table(found, ["file", "in", "public key"], rows, empty="There are no keys here.")


def _form(place: str) -> tuple[str, bool]:
    if place.startswith(KEYCHAIN):
        return "keychain", True
    data = keys.read(Path(place))
    return kept.form_of(data).value, kept.opens_unattended(data)
