"""How a person consents at the terminal: in a browser that comes back here, by pasting, or on another device."""

from __future__ import annotations

import time
import webbrowser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from keyhole.cli.base import Session
from keyhole.cli.consent import ask_text
from keyhole.client.core import Result
from keyhole.config import is_loopback
from keyhole.core.errors import InvalidRequest, UpstreamTimeout
from keyhole.net.loopback import Landing

PASTED = "http://127.0.0.1:1/callback"
"""Where a browser is sent whose address is pasted: nobody listens there, the address is enough."""


def by_browser(
    session: Session, path: str, callback: str, begin: dict[str, Any], seconds: float, *, quiet: bool
) -> Result:
    """Send a browser to the provider, and wait on this machine until it comes back."""
    port, landing = _where(begin["redirect_uri"])
    with Landing(port, landing) as here:
        redirect = begin["redirect_uri"] or here.url
        return through_browser(session, here, redirect, path, callback, begin, seconds, quiet=quiet)


def through_browser(
    session: Session,
    here: Landing,
    redirect: str,
    path: str,
    callback: str,
    begin: dict[str, Any],
    seconds: float,
    *,
    quiet: bool,
) -> Result:
    """The same with a listener that is there, which the browser finds at ``redirect``."""
    begun = session.client.write(f"{path}/authorize", {**begin, "redirect_uri": redirect}).data
    url, state = begun["authorization_url"], begun["state"]
    session.out.say(f"Consent in your browser:\n  {url}")
    if not quiet:
        webbrowser.open(url)
    target = here.wait(seconds, lambda target: _state(target) == state)
    return session.client.write(callback, {"url": f"{redirect}?{target.partition('?')[2]}"})


def by_paste(
    session: Session, path: str, callback: str, begin: dict[str, Any], _seconds: float, *, quiet: bool
) -> Result:
    """Let the person bring the address that a browser elsewhere has ended at."""
    del quiet
    redirect = begin["redirect_uri"] or PASTED
    begun = session.client.write(f"{path}/authorize", {**begin, "redirect_uri": redirect}).data
    session.out.say(f"Consent in a browser, whichever machine it runs on:\n  {begun['authorization_url']}")
    url = ask_text("The address that it ended at, all of it: ")
    return session.client.write(callback, {"url": url.strip()})


def by_device(session: Session, path: str, seconds: float) -> Result:
    """Show a code, and ask at the provider's pace whether it was typed; hanging up cancels."""
    begun = session.client.write(f"{path}/device").data
    session.out.say(f"On any device, open {begun['verification_uri']} and type the code {begun['user_code']}")
    if begun.get("verification_uri_complete"):
        session.out.say(f"or open {begun['verification_uri_complete']}")
    until, pause = time.monotonic() + min(seconds, begun["expires_in"]), begun["interval"]
    try:
        while time.monotonic() + pause < until:
            time.sleep(pause)
            said = session.client.write(f"{path}/device/poll")
            if said.data["status"] != "pending":
                return said
            pause = said.data["retry_in"]
    except BaseException:
        _cancel(session, path)
        raise
    _cancel(session, path)
    raise UpstreamTimeout("the code was not typed in time", "begin again")


def _cancel(session: Session, path: str) -> None:
    session.client.delete(f"{path}/device")


def _where(redirect: str) -> tuple[int, str]:
    """The port and path to listen at. Raises ``InvalidRequest`` for an address that is not this machine's."""
    if not redirect:
        return 0, "/callback"
    try:
        parts = urlsplit(redirect)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        port, host = None, ""
    if parts.scheme != "http" or not port or not is_loopback(host):
        raise InvalidRequest(
            "nobody here can listen at --redirect-uri", "add --paste, and paste where the browser ends"
        )
    return port, parts.path or "/"


def _state(target: str) -> str:
    return next(iter(parse_qs(urlsplit(target).query).get("state", [])), "")
