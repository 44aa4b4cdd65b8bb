"""What an open vault has in place of what others give it, before they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.errors import InternalError

if TYPE_CHECKING:
    from keyhole.crypto.passwords import PasswordRules


async def no_alarm(*_about: object) -> None:
    """Nobody hears alarms yet."""
    raise InternalError("nobody hears alarms")


async def no_passwords(*_about: object) -> PasswordRules:
    """There are no password policies yet."""
    raise InternalError("there are no password policies")
