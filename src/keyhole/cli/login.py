"""``login`` and ``logout``: a token kept for a server."""

from __future__ import annotations

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import read_value
from keyhole.core.errors import InvalidRequest, KeyholeError


@command(
    "login",
    examples="""
    keyhole login --vault https://keyhole.internal:8200
    KEYHOLE_ADDR=https://keyhole.internal:8200 keyhole login < token.txt
    """,
)
@pass_session
def login_command(session: Session, /) -> None:
    """Check a token and keep it for this server, in a file that only you can read.

    The token is asked for on a terminal, else read from stdin. It is sent to no other address.
    """
    from keyhole.client import Client, Where, connect  # noqa: PLC0415  # help needs no client
    from keyhole.client.discover import store_token  # noqa: PLC0415  # the same

    address = _address(session)
    token = read_value(f"Token for {address}: ").reveal().decode("ascii", "replace").strip()
    with Client(transport=connect(Where(address, remote=True, token=token), org=session.org)) as client:
        data = client.read("auth/token/lookup-self").data
    path = store_token(address, token)
    shown = {"address": address, "name": data["display_name"], "policies": data["policies"], "ttl": data["ttl"]}
    session.out.done(shown, f"logged in to {address} as {data['display_name']}; the token is kept in {path}")


@command("logout", examples="keyhole logout --vault https://keyhole.internal:8200\nkeyhole logout --revoke")
@click.option("--revoke", is_flag=True, help="End the token on the server too.")
@pass_session
def logout_command(session: Session, /, *, revoke: bool) -> None:
    """Forget the token that was kept for this server."""
    from keyhole.client import Client, Where, connect  # noqa: PLC0415  # as above
    from keyhole.client.discover import store_token, stored_token  # noqa: PLC0415

    address = _address(session)
    token = stored_token(address)
    if revoke and token:
        try:
            with Client(transport=connect(Where(address, remote=True, token=token))) as client:
                client.write("auth/token/revoke-self")
        except KeyholeError as error:
            session.out.warn(f"the token could not be ended: {error.reason}")
    store_token(address, "")
    session.out.done({"address": address, "forgotten": bool(token)}, f"logged out of {address}")


def _address(session: Session) -> str:
    if not session.where.remote:
        raise InvalidRequest(
            "a local vault needs no login: who can open it is its owner", "name a server: --vault https://HOST:PORT"
        )
    return session.where.location
