"""E-mail, Slack and what else the library Apprise knows, by its URLs. It is loaded when a channel of it is first used.

Apprise has connections of its own, which the guard does not make. So the hosts that a URL chooses are judged before
each message, and kinds that reach this machine alone (desktops, its log) are refused, as are options that name its
files; what the library connects to after that is between it and the resolver.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from keyhole.core.errors import InvalidRequest, KeyholeError, TargetFailed
from keyhole.core.fields import parse_texts
from keyhole.core.host import parse_host
from keyhole.net.ask import Asks
from keyhole.notifiers import Message, Settings

_MOST = 16  # URLs of a channel
_HOSTS = ("host", "smtp_host")  # of Apprise's objects, where the URL chooses one
_PLACES = 16  # messages that are being sent at the same time, of all channels
_FILES = frozenset({"attach", "keyfile", "pgpprv", "pgppub", "subfile"})  # options of its URLs; some name no file
_HERE = frozenset({"blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"})

_places = threading.BoundedSemaphore(_PLACES)


async def read(data: Mapping[str, Any]) -> dict[str, Any]:
    """``urls``: one or more of Apprise's URLs; ``allow_addresses`` for servers with private addresses."""
    value = data.get("urls") or data.get("url")
    # A comma may be part of such a URL, so only a list has several.
    urls = [value.strip()] if isinstance(value, str) else parse_texts(value, "urls", most=_MOST)
    if not urls:
        raise InvalidRequest(
            "no URL is given", "for example mailtos://USER:PASSWORD@smtp.example.com?to=ops@example.com"
        )
    for url in urls:
        await asyncio.to_thread(_made, url)
    return {"urls": urls, "allow_addresses": parse_texts(data.get("allow_addresses"), "allow_addresses", most=64)}


def shown(settings: Settings) -> dict[str, Any]:
    """The schemes alone: nearly every other part of such a URL is a credential in one of them."""
    schemes = [url.partition("://")[0] for url in settings["urls"]]
    return {"schemes": schemes, "allow_addresses": settings["allow_addresses"]}


async def send(settings: Settings, message: Message, net: Asks) -> None:
    """Send it to every URL; one that fails makes the message be sent again to all of them."""
    failed = 0
    for url in settings["urls"]:
        target = await asyncio.to_thread(_made, url)
        for host in {str(getattr(target, name, None) or "") for name in _HOSTS} - {""}:
            await _judge(host, getattr(target, "port", None), net, settings["allow_addresses"])
        title = f"Keyhole ({message.org}): {message.kind}"
        failed += not await _aside(partial(target.notify, body=message.text, title=title))
    if failed:
        raise TargetFailed(f"{failed} of {len(settings['urls'])} could not be sent", "try it: keyhole notice test NAME")


async def _aside(call: Callable[[], Any]) -> bool:
    """Call it in a thread of its own, as a server that never ends its answer holds that for good.

    Raises:
        TargetFailed: too many are held already.
    """
    if not _places.acquire(blocking=False):
        raise TargetFailed("too many messages are being sent by Apprise", "see which server does not end its answers")
    loop = asyncio.get_running_loop()
    sent: asyncio.Future[bool] = loop.create_future()

    def tell(found: bool) -> None:  # noqa: FBT001 - what is told
        if not sent.done():
            sent.set_result(found)

    def run() -> None:
        found = False
        try:
            found = bool(call())
        except Exception:  # noqa: BLE001, S110 - of a library of many authors; its text may quote the URL
            pass
        finally:
            _places.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=run, name="keyhole-notice", daemon=True).start()
    return await sent


async def _judge(host: str, port: Any, net: Asks, allow: list[str]) -> None:
    try:
        name = parse_host(host)
    except KeyholeError:
        return  # what some kinds have in that place is no host
    await net.addresses(name, int(port) if port else 443, allow=allow)


def _made(url: str) -> Any:
    """Apprise's object for a URL. Raises ``InvalidRequest``, which does not quote it."""
    if importlib.util.find_spec("apprise") is None:
        raise InvalidRequest("the library for this kind of channel is not installed", "pip install 'keyhole[notify]'")
    if url.partition(":")[0].strip().lower() in _HERE:
        raise InvalidRequest("this kind of channel reaches nobody but the server itself", "choose another")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what its many kinds import
        import apprise  # noqa: PLC0415  # slow to load, and most servers have no such channel

        log = logging.getLogger("apprise")
        log.propagate, log.disabled = False, True  # it writes URLs with what is secret in them
        made = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if made is None:
        raise InvalidRequest("Apprise cannot read this URL", "its documentation has the form of each kind")
    files = [each for each in vars(made).values() if isinstance(each, apprise.AppriseAttachment)]
    if any(files) or any(name.lower() in _FILES for name, _ in parse_qsl(urlsplit(url).query)):
        raise InvalidRequest("this URL names a file of the server", "leave out templates, key files and attachments")
    return made
