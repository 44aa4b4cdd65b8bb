"""A vault of this machine, opened inside this process: what commands and ``Client()`` use where there is no server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from keyhole import process
from keyhole.config import Config, load
from keyhole.core.errors import IntegrityError, InternalError, KeyholeError, NotFound, Sealed
from keyhole.core.request import LocalOwner, Operation, Reply, Request
from keyhole.core.value import Secret
from keyhole.seals import asks_for, open_seal, quorum
from keyhole.stores import open_store
from keyhole.vault.node import Node
from keyhole.vault.sealing import NO_RECOVERY, HandOut

if TYPE_CHECKING:
    import socket

    from keyhole.app import Keyhole
    from keyhole.core.stated import Stated
    from keyhole.engines import NetView, Route
    from keyhole.faces.proxy import ProxyServer
    from keyhole.net.ask import Heard
    from keyhole.vault.vault import Vault

_STATUS = "sys/seal-status"
_OF_THE_ROAD = (
    "sys/why",
    "sys/keyhole",
    "sys/reach",
    "sys/capture",
    "sys/policy-capture",
    "sys/policy-replay",
    "sys/notices",
    "sys/rotations",
)
_FREE_PORT = "127.0.0.1:0"


class LocalVault:
    """Opens itself at the first request, and only as much of itself as that request needs.

    Args:
        location: of the store.
        passphrase: asked for what a person enters for the seal, with a prompt that names it; gives ``None`` where
            nobody answers.
        interactive: the keychain may ask its user.
        road: the broker will be needed.
        flags: settings that win over the file and the environment.
    """

    def __init__(
        self,
        location: str,
        *,
        passphrase: Callable[[str], Secret | None] = lambda _prompt: None,
        interactive: bool = False,
        road: bool = False,
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        self.config: Config = load(flags={**(flags or {}), "vault": location})
        self._passphrase = passphrase
        self._interactive = interactive
        self._road = road
        self._node: Node | None = None
        self._keyhole: Keyhole | None = None
        self._proxy: ProxyServer | None = None
        self._entered: Secret | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(
        self,
        operation: str,
        path: str,
        data: Mapping[str, Any],
        *,
        token: str,
        org: str,
        stated: Stated | None = None,
    ) -> Reply:
        """Ask the door; without a token as the vault's owner.

        Raises:
            NotFound: there is no vault.
            Sealed, IntegrityError: nothing to open it with, or the wrong key.
            KeyholeError: what the door refuses.
        """
        if path == _STATUS:
            return Reply(await (await self._closed_node()).status(), bare=True)
        node = await self._open_node(road=path.startswith(_OF_THE_ROAD))
        credential = token.encode() if token else LocalOwner()
        return await node.handle(Request(credential, Operation(operation), path, data, org, stated=stated))

    async def start_proxy(self) -> tuple[str, str]:
        """Listen for calls on a free port of loopback; the proxy's URL and the PEM of its CA."""
        from keyhole import app  # noqa: PLC0415  # the road is slow to import and most commands do not travel

        await self._open_node(road=True)
        if self._keyhole is None:
            raise InternalError("the road is not open")
        if self._proxy is None:
            self._proxy = await app.start_proxy(self._keyhole, _FREE_PORT)
        reply = await self.ask("read", "sys/keyhole", {}, token="", org="")
        return self._keyhole.proxy_url, str((reply.data or {})["ca"])

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a socket that listens already, as the proxy."""
        await self.start_proxy()
        if self._proxy is not None:
            await self._proxy.listen(sock=sock)

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record what a listener of this process has refused before the vault was asked; from any thread."""
        if self._loop is not None and self._node is not None:
            with contextlib.suppress(RuntimeError):  # it is being closed
                self._loop.call_soon_threadsafe(self._node.note_refusal, error, remote)

    @property
    def is_open(self) -> bool:
        """Was there a vault, and did its key fit?"""
        return self._node is not None and self._node.vault is not None

    @property
    def keyhole(self) -> Keyhole | None:
        """The road, once it was needed."""
        return self._keyhole

    async def close(self) -> None:
        """Finish what was accepted and let the vault go; the next request opens it again."""
        proxy, keyhole, node = self._proxy, self._keyhole, self._node
        self._proxy = self._keyhole = self._node = None
        if proxy is not None:
            await proxy.close(0)
        if keyhole is not None:
            await keyhole.close()
        elif node is not None:
            await node.close()

    async def _closed_node(self) -> Node:
        """The node, open or not."""
        if self._node is None:
            process.harden_process()
            if self._road:
                from keyhole import app  # noqa: PLC0415  # as above

                self._keyhole = await app.assemble(self.config)
                self._node = self._keyhole.node
            else:
                store = await open_store(self.config.vault)
                self._node = Node(store, extend=self._connect, max_uses=self.config.max_uses, egress=self.config.egress)
        return self._node

    def _connect(self, vault: Vault) -> tuple[Route, ...]:
        """Let mounts ask the servers that they were told of."""
        vault.net = _LateNet(self.config)
        return ()

    async def _open_node(self, *, road: bool) -> Node:
        if road and not self._road:
            await self.close()
            self._road = True
        node = await self._closed_node()
        self._loop = asyncio.get_running_loop()
        if node.vault is None:
            try:
                await node.unseal(await self._opener(node), spec=self.config.seal, interactive=self._interactive)
            except IntegrityError as error:
                raise Sealed(error.reason, error.hint) from None  # with a wrong key it stays as it was
        return node

    async def _opener(self, node: Node) -> Secret | None:
        """What a person enters, asked for once and only by a vault that needs it."""
        header = await node.header()
        seal = self.config.seal or (header.seal if header is not None else "")
        if (asks := asks_for(seal)) and self._entered is None:
            self._entered = self._passphrase(f"{asks}: ")
        return self._entered


class _LateNet:
    """What asks servers, imported when one is asked: most commands ask none."""

    def __init__(self, config: Config) -> None:
        self.programs = not config.forbid_commands
        self._config = config
        self._asker: NetView | None = None

    @property
    def _net(self) -> NetView:
        if self._asker is None:
            from keyhole import app  # noqa: PLC0415  # as above

            self._asker = app.asker(self._config)
        return self._asker

    async def ask(self, *asked: Any, **how: Any) -> Heard:
        """See ``NetView``."""
        return await self._net.ask(*asked, **how)

    async def addresses(self, *asked: Any, **how: Any) -> list[str]:
        """See ``NetView``."""
        return await self._net.addresses(*asked, **how)


async def create_vault(
    location: str,
    seal: str,
    passphrase: Secret | None,
    *,
    flags: Mapping[str, Any] | None = None,
    hand_out: HandOut | None = None,
    recovery: tuple[int, int] = NO_RECOVERY,
) -> str:
    """Make a vault in an empty store, and give its root token; ``hand_out`` gets the shares of a seal that has some.

    Raises:
        Conflict: there is a vault already.
        InvalidRequest: the seal, or what it needs, is not usable.
        Sealed: the seal has nothing to seal with.
    """
    config = load(flags={**(flags or {}), "vault": location})
    process.harden_process()
    open_seal(seal, passphrase=passphrase, vault_id="", create=True)  # judged before a store comes to be
    node = Node(await open_store(location, create=True), max_uses=config.max_uses, egress=config.egress)
    try:
        return await node.init(seal, passphrase, hand_out=hand_out, recovery=recovery)
    finally:
        await node.close()


async def migrate_vault(
    location: str,
    seal: str,
    old: Callable[[str, int], Secret | None],
    entered: Secret | None,
    *,
    hand_out: HandOut,
    recovery: tuple[int, int] = NO_RECOVERY,
) -> None:
    """Give a vault another seal.

    Args:
        location: of its store.
        seal: the new one.
        old: gives what opens the old seal; told what it asks for, and how many shares it needs.
        entered: passphrase or PIN of the new seal.
        hand_out: called with new shares before they count.
        recovery: how many recovery shares the new seal gets, and how many of them are needed.

    Raises:
        NotFound: there is no vault.
        KeyholeError: one of the seals does not work; the old one is in force.
    """
    config = load(flags={"vault": location})
    process.harden_process()
    node = Node(await open_store(config.vault), max_uses=config.max_uses, egress=config.egress)
    node.configured = config.seal
    try:
        header = await node.header()
        if header is None:
            raise NotFound("there is no vault in this store", "make a vault: keyhole init")
        threshold = quorum(header.seal)[1] if header.seal.startswith("shares:") else 0
        await node.unseal(old(asks_for(header.seal), threshold))
        from keyhole.vault.migration import migrate  # noqa: PLC0415  # few commands change the seal

        await migrate(node, seal, entered, hand_out=hand_out, recovery=recovery)
    except IntegrityError as error:
        raise Sealed(error.reason, error.hint) from None
    finally:
        await node.close()


async def has_vault(location: str) -> bool:
    """Is there a vault at this location?"""
    try:
        store = await open_store(location)
    except NotFound:
        return False
    node = Node(store)
    try:
        return await node.header() is not None
    finally:
        await node.close()
