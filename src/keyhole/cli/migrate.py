"""``operator migrate``: another seal for a vault of this machine."""

from __future__ import annotations

import asyncio
import sys

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import PassphraseSource, ask_hidden, read_value
from keyhole.cli.init import check_new_seal, recovery_options
from keyhole.core.errors import InvalidRequest
from keyhole.core.value import Secret


@command(
    "migrate",
    examples="""
    keyhole operator migrate --to passphrase --new-passphrase-file new.txt
    keyhole operator migrate --to keyfile:/etc/keyhole/key --make-keyfile
    keyhole operator migrate --to age:/etc/keyhole/identity.txt
    keyhole operator migrate --to shares:5:3
    keyhole operator migrate --to 'awskms:alias/keyhole?region=eu-central-1'
    """,
)
@click.option("--to", "seal", metavar="SEAL", required=True, help="The new seal, as keyhole init takes it.")
@click.option("--make-keyfile", is_flag=True, help="Make the key file of --to keyfile:PATH; it must not exist.")
@click.option("--new-passphrase-file", metavar="FILE", default="", help="First line: the new passphrase, or PIN.")
@recovery_options
@pass_session
def migrate(
    session: Session,
    /,
    *,
    seal: str,
    make_keyfile: bool,
    new_passphrase_file: str,
    recovery_shares: int | None,
    recovery_threshold: int | None,
) -> None:
    """Give a vault another seal, or the same kind with another key, and a new root key with it.

    Stop the servers over the vault first. The old seal is needed once more; shares are asked for one after the other,
    or read from stdin, one a line. The new seal has to give back what it wraps before the old one is let go. New shares
    are printed before they count: they do if the command ends with 0.
    """
    if session.where.remote:
        raise InvalidRequest(
            "the seal is changed where the store is", "stop the server, and name the store: --vault sqlite:PATH"
        )
    from keyhole.cli.local import migrate_vault  # noqa: PLC0415  # few commands need it
    from keyhole.seals import asks_for  # noqa: PLC0415  # the same

    recovery = check_new_seal(seal, recovery_shares, recovery_threshold, make_keyfile=make_keyfile)
    entered = _new_secret(seal, asks_for(seal), new_passphrase_file)

    def old(asks: str, shares: int) -> Secret | None:
        return _shares(shares) if shares else session.passphrase.get(f"{asks}: ") if asks else None

    def hand_out(shares: list[Secret]) -> None:
        texts = [share.reveal().decode() for share in shares]
        if session.out.json:
            session.out.result({"seal": seal, "recovery" if recovery[0] else "shares": texts})
            return
        kind = "recovery shares" if recovery[0] else "shares of its new seal"
        session.out.say(f"the {kind}, shown this once; give each to another person:")
        session.out.result({}, texts)

    asyncio.run(migrate_vault(session.where.location, seal, old, entered, hand_out=hand_out, recovery=recovery))
    if not session.out.json:
        session.out.say(f"the vault in {session.where.location} is sealed with {seal.partition(':')[0]}")


def _new_secret(seal: str, asks: str, file: str) -> Secret | None:
    if not asks:
        return None
    source = PassphraseSource()
    source.file = file
    return source.get_new() if seal == "passphrase" or file else ask_hidden(f"{asks}: ")


def _shares(threshold: int) -> Secret:
    """Shares of the old seal, with space between them."""
    if sys.stdin is not None and sys.stdin.isatty():
        entered = [ask_hidden(f"Share {number} of {threshold}: ") for number in range(1, threshold + 1)]
        return Secret(b" ".join(share.reveal() for share in entered))
    return Secret(b" ".join(read_value("").reveal().split()))
