"""What a node does for its open vault from time to time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from keyhole.core.errors import IntegrityError
from keyhole.vault.sealing import keep_alive

if TYPE_CHECKING:
    from keyhole.vault.node import Node
    from keyhole.vault.sys.sweep import Sweeper
    from keyhole.vault.vault import Vault

_log = logging.getLogger("keyhole")


class Sweeping:
    """Follows the store's time and the vault's keys, and removes what is past its time."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sweeps: tuple[Vault, Sweeper] | None = None

    def forget(self) -> None:
        """The vault is closed."""
        self._sweeps = None

    async def sweep(self, vault: Vault) -> int:
        """Do all of it once; how many tokens ended.

        Raises:
            IntegrityError: the vault has another root key, and is sealed here.
        """
        vault.clock.resynchronise(await self._node.store.now())
        try:
            await vault.keys.refresh()
        except IntegrityError:
            _log.error("the vault has another root key, since longer than this server can follow: it is sealed")
            self._node.seal_soon()
            raise
        await keep_alive(self._node.opener)
        if self._sweeps is None or self._sweeps[0] is not vault:
            from keyhole.vault.sys.sweep import Sweeper  # noqa: PLC0415  # short commands end before

            self._sweeps = (vault, Sweeper(vault))
        return await self._sweeps[1].sweep()
