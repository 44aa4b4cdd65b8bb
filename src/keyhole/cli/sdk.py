"""What ``from keyhole import Client`` gives: the clients, with the means to open a vault of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole import client
from keyhole.client.discover import Where

if TYPE_CHECKING:
    from keyhole.cli.local import LocalVault


def open_local(where: Where) -> LocalVault:
    """A local vault whose seal needs nobody. One with a passphrase says so when it is asked."""
    from keyhole.cli.local import LocalVault  # noqa: PLC0415  # a client of a server needs no vault

    return LocalVault(where.location)


class Client(client.Client):
    """See ``keyhole.client.Client``."""

    opener = staticmethod(open_local)


class AsyncClient(client.AsyncClient):
    """See ``keyhole.client.AsyncClient``."""

    opener = staticmethod(open_local)
