"""A notice: what the administrators of an org are told, in words that never carry a value. Pure."""

from __future__ import annotations

from typing import NamedTuple

KINDS = {
    "expiry": "a secret expires, or has expired",
    "rotation-due": "a secret is due for a new value",
    "rotation-failed": "a rotation has failed",
    "consent": "a connection needs somebody's consent",
    "alarm": "a tripwire, a honey secret, a lease that cannot be taken back",
    "test": "somebody tries a channel",
}
DAYS = (30, 7, 1)
"""Days before a date at which administrators are told, unless an org says otherwise."""


class Notice(NamedTuple):
    """One notice.

    Attributes:
        kind: one of ``KINDS``.
        subject: the name of what it is about.
        text: one sentence for people, with names and times and never a value.
        key: a notice of the same kind and key is given once, whoever gives it.
    """

    kind: str
    subject: str
    text: str
    key: str
