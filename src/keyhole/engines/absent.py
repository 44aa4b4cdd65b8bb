"""What an engine has in place of the views that nobody gave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InternalError

if TYPE_CHECKING:
    from keyhole.core.lease import Lease
    from keyhole.core.notice import Notice
    from keyhole.core.service import Service
    from keyhole.core.value import Secret
    from keyhole.crypto.passwords import PasswordRules
    from keyhole.net.ask import Heard


class NoLeases:
    """Where nothing can be leased: logins, what the door asks by itself, engines that have no ``revoke``."""

    async def begin(self, **_wanted: Any) -> Lease:
        """See ``LeaseView``."""
        raise InternalError("nothing can be leased here")


class NoNet:
    """Where nobody can be asked: a door without a process around it."""

    programs = False

    async def ask(self, *_asked: Any, **_how: Any) -> Heard:
        """See ``NetView``."""
        raise InternalError("nobody can be asked here")

    async def addresses(self, *_asked: Any, **_how: Any) -> list[str]:
        """See ``NetView``."""
        raise InternalError("nobody can be asked here")


async def no_passwords(_name: str) -> PasswordRules:
    """See ``PasswordsView``."""
    raise InternalError("there are no password policies here")


async def no_lend(_path: str, _field: str) -> Secret:
    """See ``LendView``."""
    raise InternalError("there are no secrets to be lent here")


async def unbound(_service: Service) -> None:
    """Where there are no sources."""


class NoNotices:
    """Where nobody is told anything: a door without a vault around it."""

    async def days(self) -> Sequence[int]:
        """See ``NoticesView``."""
        from keyhole.core.notice import DAYS  # noqa: PLC0415  # an open vault has its own

        return DAYS

    async def tell(self, _notice: Notice) -> bool:
        """See ``NoticesView``."""
        return False


LEASES, NET, NOTICES = NoLeases(), NoNet(), NoNotices()
