"""What an engine may find at its targets that no lease knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keyhole.core.lease import Lease

if TYPE_CHECKING:
    from keyhole.engines import Context


@dataclass(frozen=True, slots=True)
class Stray:
    """Something at a target that looks as if it had been made here and that no lease knows.

    Attributes:
        target: as in ``Lease.target``.
        name: there; empty where the target could not be looked at.
        error: why it could not be looked at, or taken away.
        dropped: it was taken away.
    """

    target: str
    name: str = ""
    error: str = ""
    dropped: bool = False


class Strays(Protocol):
    """Looks for strays at all targets of a mount."""

    async def __call__(
        self,
        context: Context,
        leases: Callable[[], Awaitable[Sequence[Lease]]],
        drop: Collection[tuple[str, str]],
    ) -> list[Stray]:
        """Find them, and take those away that are named.

        Args:
            context: of the mount.
            leases: all leases of all mounts of the same type, in every state, as they are when it is called.
            drop: target and name of each stray that is to go; what is no stray any more stays.
        """
