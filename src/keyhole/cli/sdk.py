"""What ``from keyhole import Client`` gives: the clients, with the means to open a vault of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from keyhole import client
from keyhole.client.discover import Where

if TYPE_CHECKING:
    from keyhole.adapters.vault import ToolVault
    from keyhole.cli.local import LocalVault

F = TypeVar("F", bound=Callable[..., Any])


def open_local(where: Where) -> LocalVault:
    """A local vault whose seal needs nobody. One with a passphrase says so when it is asked."""
    from keyhole.cli.local import LocalVault  # noqa: PLC0415  # a client of a server needs no vault

    return LocalVault(where.location)


class Client(client.Client):
    """See ``keyhole.client.Client``."""

    opener = staticmethod(open_local)
    _tools: ToolVault | None = None

    def tool(self, name: str, *, needs: Mapping[str, str]) -> Callable[[F], F]:
        """A decorator for a function, sync or async, that is a tool of an agent and needs credentials.

            @kh.tool("slack.send", needs={"token": "slack/bot-token"})
            def send(channel: str, text: str, *, credentials) -> dict: ...

        They are read fresh for each call, which takes ``read`` and is recorded, and dropped at its end; what the
        function returns or raises is scrubbed of them. Whoever looks at the function finds ``send(channel, text)``.

        Args:
            name: of the tool, such as ``slack.send``; it stands in the audit trail.
            needs: name to secret (``slack/bot-token``, ``db/prod#password``), or to what is leased for the call
                (``/database/creds/readonly``).

        Raises:
            InvalidRequest: a name or a reference is none, or the function has no keyword parameter ``credentials``.
        """
        from keyhole.adapters.tool import wrap  # noqa: PLC0415  # few programs have tools
        from keyhole.adapters.vault import ToolVault  # noqa: PLC0415  # as above

        if self._tools is None:
            self._tools = ToolVault(self)
        return wrap(self._tools, name, needs)

    def close(self) -> None:
        """See ``keyhole.client.Client.close``."""
        if self._tools is not None:
            self._tools.close()
        super().close()


class AsyncClient(client.AsyncClient):
    """See ``keyhole.client.AsyncClient``."""

    opener = staticmethod(open_local)
    blocking = Client

    def tool(self, name: str, *, needs: Mapping[str, str]) -> Callable[[F], F]:
        """See ``Client.tool``."""
        found: Callable[[F], F] = self._client.tool(name, needs=needs)  # type: ignore[attr-defined]  # it is one of ours
        return found
