"""``operator rekey`` and ``operator generate-root``: what takes several people, each with a share."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import read_value
from keyhole.core.errors import InvalidRequest

_AT_A_SERVER = "this needs a running server: name it with --vault https://… or KEYHOLE_ADDR"


def _share() -> str:
    return read_value("One share: ").reveal().decode(errors="replace").strip()


def _require_server(session: Session) -> None:
    if not session.where.remote:
        raise InvalidRequest("several people enter their shares at a server", _AT_A_SERVER)


@command(
    "rekey",
    examples="""
    keyhole operator rekey --shares 5 --threshold 3
    keyhole operator rekey
    keyhole operator rekey --cancel
    keyhole operator rekey --recovery --shares 5 --threshold 3
    """,
)
@click.option("--shares", type=int, metavar="N", help="Begin: how many new shares there shall be.")
@click.option("--threshold", type=int, metavar="N", help="How many of them shall be needed.")
@click.option("--recovery", is_flag=True, help="The recovery shares of a seal that needs nobody.")
@click.option("--no-verify", is_flag=True, help="New shares count at once, and not when enough were entered again.")
@click.option("--cancel", is_flag=True, help="Forget the attempt; what was in force stays so.")
@pass_session
def rekey(
    session: Session,
    /,
    *,
    shares: int | None,
    threshold: int | None,
    recovery: bool,
    no_verify: bool,
    cancel: bool,
) -> None:
    """Give a vault a new root key, and its people new shares.

    Begin with --shares and --threshold (both 1 for a seal without shares). Then each holder runs it without options and
    enters a share, hidden on a terminal or from stdin. Whoever completes the threshold sees the new shares, once. They
    count when as many of them as are needed were entered in the same way.
    """
    _require_server(session)
    prefix = "sys/rekey-recovery-key" if recovery else "sys/rekey"
    if cancel:
        session.client.delete(f"{prefix}/init")
        session.out.done({"started": False}, "cancelled: what was in force stays so")
        return
    if shares is not None or threshold is not None:
        body = {"secret_shares": shares or 0, "secret_threshold": threshold or 0}
        verify = not no_verify and (recovery or _has_shares(session))
        status = session.client.write(f"{prefix}/init", {**body, "require_verification": verify}).data
        session.out.done(_progress(status), f"begun: now {status['required']} holders enter their shares")
        return
    status = session.client.read(f"{prefix}/init").data
    if not status["started"]:
        raise InvalidRequest("no rekey in progress", "begin: keyhole operator rekey --shares 5 --threshold 3")
    if status.get("verification_nonce"):
        _verify(session, prefix)
        return
    answer = session.client.write(f"{prefix}/update", {"key": _share(), "nonce": status["nonce"]}).data
    if not answer.get("complete"):
        session.out.done(_progress(answer), f"{answer['progress']} of {answer['required']} shares are entered")
        return
    _show(session, answer)


def _has_shares(session: Session) -> bool:
    return bool(session.client.read("sys/seal-status").data["type"] == "shamir")


def _progress(status: dict[str, Any]) -> dict[str, Any]:
    return {name: status[name] for name in ("started", "nonce", "progress", "required", "t", "n")}


def _show(session: Session, answer: dict[str, Any]) -> None:
    found = {"keys_base64": answer["keys_base64"], "verification_required": answer["verification_required"]}
    if session.out.json:
        session.out.result(found)
        return
    if answer["keys_base64"]:
        session.out.say("the new shares, shown this once; give each to another person:")
        session.out.result({}, answer["keys_base64"])
    if answer["verification_required"]:
        session.out.say("the old ones count until enough of these were entered: keyhole operator rekey")
    else:
        session.out.say("done: the vault has a new root key")


def _verify(session: Session, prefix: str) -> None:
    status = session.client.read(f"{prefix}/verify").data
    answer = session.client.write(f"{prefix}/verify", {"key": _share(), "nonce": status["nonce"]}).data
    if answer.get("complete"):
        session.out.done({"complete": True}, "the new shares are in force, and the old ones count for nothing")
        return
    shown = {name: answer[name] for name in ("nonce", "t", "n", "progress")}
    session.out.done(shown, f"{answer['progress']} of {answer['t']} new shares are entered")


@command(
    "generate-root",
    examples="""
    keyhole operator generate-root --start
    keyhole operator generate-root
    keyhole operator generate-root --decode ENCODED
    keyhole operator generate-root --cancel
    """,
)
@click.option("--start", is_flag=True, help="Begin; prints a one-time pad that hides the token, shown this once.")
@click.option("--decode", metavar="ENCODED", default="", help="The token behind this; asks for the pad.")
@click.option("--cancel", is_flag=True, help="Forget the attempt.")
@pass_session
def generate_root(session: Session, /, *, start: bool, decode: str, cancel: bool) -> None:
    """Make a new root token, by as many shares as are needed.

    Who begins keeps the pad. Each holder then runs it without options and enters a share. The last one sees the token
    as the pad hides it; only who has the pad can decode it.
    """
    if decode:
        token = _decoded(decode, read_value("One-time pad: ").reveal().strip())
        session.out.result({"token": token}, token)
        return
    _require_server(session)
    if cancel:
        session.client.delete("sys/generate-root/attempt")
        session.out.done({"started": False}, "cancelled")
        return
    if start:
        begun = session.client.write("sys/generate-root/attempt").data
        shown = {name: begun[name] for name in ("nonce", "required", "otp")}
        session.out.say(f"begun: now {begun['required']} holders enter their shares. The one-time pad:")
        session.out.result(shown, begun["otp"])
        return
    status = session.client.read("sys/generate-root/attempt").data
    if not status["started"]:
        raise InvalidRequest("no root generation in progress", "begin: keyhole operator generate-root --start")
    answer = session.client.write("sys/generate-root/update", {"key": _share(), "nonce": status["nonce"]}).data
    shown = {name: answer[name] for name in ("complete", "progress", "required", "encoded_root_token")}
    if answer["complete"]:
        session.out.say("the token, hidden by the pad of who began:")
        session.out.result(shown, answer["encoded_root_token"])
        return
    session.out.done(shown, f"{answer['progress']} of {answer['required']} shares are entered")


def _decoded(encoded: str, pad: bytes) -> str:
    try:
        hidden = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        return bytes(left ^ right for left, right in zip(hidden, pad, strict=True)).decode("ascii")
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            "the pad and what it hides do not belong together", "use the pad that --start printed for this attempt"
        ) from None
