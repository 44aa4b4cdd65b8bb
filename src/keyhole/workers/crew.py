"""A worker, as the parts of its server know it: what it shares with the other workers, and what it asks of them."""

from __future__ import annotations

import contextlib
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from keyhole.broker.sql.sessions import Sessions
from keyhole.core.errors import KeyholeError, PolicyDenied, Sealed
from keyhole.core.request import Anonymous, Credential
from keyhole.core.tally import Tallies
from keyhole.faces.api import status
from keyhole.faces.api.app import Api
from keyhole.faces.api.envelope import Answer
from keyhole.net.tasks import Tasks
from keyhole.vault.node import Node
from keyhole.vault.vault import Vault
from keyhole.workers.channel import Data

_HIGHEST = frozenset({"keyhole_sealed"})  # figures that do not add up


class Captured:
    """The other workers, as captures know them (``broker.capturing.Others``)."""

    def __init__(self, here: int, ask: Callable[..., Awaitable[Data]]) -> None:
        self.here = here
        self.told: Callable[[Data], Awaitable[Data]] | None = None
        self._ask = ask

    async def tell(self, op: str, **data: Any) -> list[Data]:
        """Ask all; what those answer that serve, and know of what is asked."""
        said = await self._ask("gather", what="capture", about={"op": op, **data})
        answers: list[Data] = said["answers"]
        return answers

    async def ask(self, home: int, op: str, **data: Any) -> Data:
        """Ask one."""
        return await self._ask("one", index=home, what="capture", about={"op": op, **data})

    async def catch_up(self) -> None:
        """Take part in the captures that are on."""
        if self.told is None:
            return
        found = {each["id"]: each for answer in await self.tell("list") for each in answer["on"]}
        for each in found.values():
            with contextlib.suppress(KeyholeError):  # one of an org that is gone keeps nobody from serving
                await self.told({"op": "begin", **each})


class Crew:
    """The workers of a server, as one of them sees them.

    Args:
        index: of this worker; 0 and up.
        count: how many there are.
        sock: that all accept on, at a path.
        tallies: where all count.
        ask: asks the parent.
        epoch: how often the vault was sealed, so that no key comes back that was told before.

    Attributes:
        captures: asks the others about captures.
    """

    def __init__(
        self,
        index: int,
        count: int,
        sock: socket.socket | None,
        tallies: Tallies,
        ask: Callable[..., Awaitable[Data]],
        epoch: int,
    ) -> None:
        self.index = index
        self.count = count
        self.sock = sock
        self._tallies = tallies
        self._ask = ask
        self.captures = Captured(index, ask)
        self._epoch = epoch
        self._told = Tasks()
        self._api: Api | None = None
        self._node: Node | None = None
        self._sessions: Sessions | None = None

    def count_together(self, vault: Vault) -> None:
        """Let an open vault count where all workers count."""
        vault.meters.gather = self.calls
        vault.limiting.tallies = vault.quotas.tallies = vault.tables.guesses.tallies = self._tallies

    def join(self, api: Api, node: Node) -> None:
        """Serve what others ask of this worker, and let it ask them."""
        self._api, self._node = api, node
        api.ceremony, api.others = self.ceremony, self.figures

    def tell_root(self, root: bytes) -> None:
        """Let the others open the vault, or follow to a new root key."""
        self._told.begin(self._tell_root(root, self._epoch))

    async def _tell_root(self, root: bytes, epoch: int) -> None:
        with contextlib.suppress(KeyholeError):
            await self._ask("root", root=root, epoch=epoch)

    async def close_others(self) -> None:
        """Seal the vault in all other workers."""
        self._epoch = (await self._ask("seal"))["epoch"]

    async def ceremony(
        self, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, Any], who: Credential
    ) -> Answer:
        """Have the worker that holds ceremonies answer a request (see ``faces.api.status``)."""
        token = who if isinstance(who, bytes) else None
        said = await self._ask("ceremony", method=method, path=path, body=dict(body), query=dict(query), who=token)
        return said["status"], [(name, value) for name, value in said["headers"]], said["body"]

    def join_sessions(self, sessions: Sessions) -> None:
        """Let requests to cancel find a session with a database in whichever worker it is."""
        self._sessions = sessions
        sessions.elsewhere = self.cancel

    async def cancel(self, token: bytes | None, key: bytes, remote: str) -> None:
        """Have the worker that has a session stop its statement. Raises ``PolicyDenied`` where none has."""
        said = await self._ask("gather", what="cancel", about={"token": token, "key": key, "remote": remote})
        if not said["answers"]:
            raise PolicyDenied("a cancel request names no session of its caller", "it may have ended")

    async def figures(self, own: str) -> str:
        """The figures of all workers together, in the text format of Prometheus."""
        said = await self._ask("gather", what="figures")
        return merged([own, *(each["text"] for each in said["answers"])])

    async def calls(self, org: str, others: bool) -> list[dict[str, Any]]:  # noqa: FBT001  # as it is asked for
        """What the other workers have counted of calls; see ``Meters.state``."""
        said = await self._ask("gather", what="calls", about={"org": org, "others": others})
        return [each for each in said["answers"] if each]

    async def serve(self, kind: str, data: Data) -> Data:
        """Answer what another worker, or the parent, asks."""
        if self._node is None or self._api is None:
            raise KeyholeError("this worker has not started yet", "ask again")
        if kind == "root":
            await self._node.take(data["root"])
        elif kind == "seal":
            self._epoch = data["epoch"]
            await self._node.seal()
        elif kind == "figures":
            return {"text": self._api.figures()}
        elif kind == "calls" and self._node.vault is not None:
            return self._node.vault.meters.state(data["org"], others=data["others"])
        elif kind == "capture":
            if self.captures.told is None:
                raise Sealed("Vault is sealed", "unseal it: keyhole operator unseal")
            return await self.captures.told(data)
        elif kind == "cancel" and self._sessions is not None:
            await self._sessions.cancel(data["token"], data["key"], data["remote"], here=True)
        elif kind == "ceremony":
            return await self._hold(data)
        return {}

    async def _hold(self, data: Data) -> Data:
        if self._node is None:
            raise KeyholeError("this worker has not started yet", "ask again")
        who = data["who"] if data["who"] is not None else Anonymous()
        try:
            code, headers, body = await status.serve(
                self._node, data["method"], data["path"], data["body"], data["query"], who
            )
        finally:
            await self._told.settle()  # who is told that the vault is open may ask any worker
        return {"status": code, "headers": headers, "body": body}


def merged(texts: Sequence[str]) -> str:
    """Several texts of Prometheus as one: what has the same name and labels is added up."""
    lines: OrderedDict[str, float | None] = OrderedDict()
    for text in texts:
        for line in text.splitlines():
            name, _, number = line.rpartition(" ")
            if line.startswith("#"):
                lines.setdefault(line, None)
            elif name in _HIGHEST:
                lines[name] = max(lines.get(name) or 0.0, float(number))
            else:
                lines[name] = (lines.get(name) or 0.0) + float(number)
    return "".join(f"{line}\n" if number is None else f"{line} {number:.15g}\n" for line, number in _by_family(lines))


def _by_family(lines: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    """Each line behind the comment of its family, also where only a later text had it."""
    families: dict[str, list[tuple[str, float | None]]] = {}
    kinds = {line.split()[2] for line, number in lines.items() if number is None and len(line.split()) > 2}
    for line, number in lines.items():
        name = line.split()[2] if number is None else line.partition("{")[0]
        family = name
        while family not in kinds and "_" in family:
            family = family.rpartition("_")[0]
        families.setdefault(family if family in kinds else name, []).append((line, number))
    return [each for family in families.values() for each in family]
