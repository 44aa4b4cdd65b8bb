"""Shelf: how administrators are told. A member takes a message to one place, and knows nothing of what it is about.

    webhook = notifiers.load("webhook")
    settings = await webhook.read({"url": "https://hooks.example.com/keyhole"})
    await webhook.send(settings, message, net)

Promises of a member:

1. ``read`` takes the fields of a request and raises ``InvalidRequest`` for what cannot work; it reaches nothing.
2. ``shown`` leaves out every part that could be a credential: what was set is never read back.
3. ``send`` returns when the other side has taken the message, and raises ``KeyholeError`` when it has not. Its reasons
   quote neither the settings nor what was answered.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from keyhole.core.errors import InvalidRequest

if TYPE_CHECKING:
    from keyhole.net.ask import Asks

MEMBERS = ("apprise", "webhook")
Settings = Mapping[str, Any]


class Message(NamedTuple):
    """What is sent.

    Attributes:
        id: the same whenever it is sent again.
        time: RFC 3339.
        org: whose administrators are meant.
        kind: one of ``core.notice.KINDS``.
        subject: the name of what it is about.
        text: one sentence.
    """

    id: str
    time: str
    org: str
    kind: str
    subject: str
    text: str

    def as_data(self) -> dict[str, str]:
        """JSON-ready."""
        return self._asdict()


class Notifier(Protocol):
    """What a member's module has."""

    async def read(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What is stored of the fields of a request. Raises ``InvalidRequest``."""

    def shown(self, settings: Settings) -> dict[str, Any]:
        """What may be seen of it."""

    async def send(self, settings: Settings, message: Message, net: Asks) -> None:
        """Take a message there. Raises ``KeyholeError``."""


def load(kind: str) -> Notifier:
    """The member of this name. Raises ``InvalidRequest`` when there is none."""
    if kind not in MEMBERS:
        raise InvalidRequest(f"there is no notifier {kind[:40]!r}", f"use one of: {', '.join(MEMBERS)}")
    return cast("Notifier", importlib.import_module(f"keyhole.notifiers.{kind}"))
