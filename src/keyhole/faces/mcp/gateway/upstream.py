"""One server behind the gateway: started when it is asked for, again after a pause when it ended, anew for new keys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import mcp_types as types
from mcp import Client
from mcp.client._transport import TransportStreams
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError

from keyhole import __version__
from keyhole.core.errors import KeyholeError, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.tool_server import ToolServer, digest_of, is_tool_name, look_alikes
from keyhole.faces.mcp.gateway.cleaned import Cleaner
from keyhole.faces.mcp.gateway.reach import Bound, Reach, Ways
from keyhole.faces.mcp.gateway.talk import Patience, Say, Talk, nobody
from keyhole.faces.mcp.gateway.wants import Wanted
from keyhole.scrub import Scrubber
from keyhole.vault.tool_rules import is_bounded

_START = 30.0  # seconds that a server has to be ready
_FRESH = 30.0  # seconds for which a list of tools is good for calls
_LIVED = 60.0  # seconds after which a server that ends is no crash
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_MOST_TOOLS = 2000
_MOST_PAGES = 100
LARGEST_LIST = 16 * 1024 * 1024  # characters of all pages
_MOST_LATE = 3  # calls one after the other that are not answered in time, after which it is begun anew
_DRAIN = 30.0  # seconds that calls have to end with the keys with which they began


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool as its server shows it now.

    Attributes:
        tool: without what is of no concern to a model.
        digest: of it.
    """

    tool: types.Tool
    digest: str


class Session:
    """One life of a server.

    Args:
        bound: what it is started with.
        ways: how it is reached.
        mode: of the negotiation of the protocol's revision.
        say: is told what changes at the server.
        watched: URIs of its resources of which a client wants to hear.
    """

    def __init__(self, bound: Bound, ways: Ways, mode: str, say: Say = nobody, watched: Iterable[str] = ()) -> None:
        self.bound = bound
        self.talk = Talk(self, say, watched, ways.questions)
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.stale = True
        self._late = 0
        self.began = time.monotonic()
        self._mode = mode
        self._stop = asyncio.Event()
        self.reach = Reach(bound, ways, self._stop.set)
        self._ready: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    @property
    def scrubber(self) -> Scrubber:
        """Of all that the server was given."""
        return self.reach.scrubber

    @property
    def ended(self) -> bool:
        """Whether it speaks no more."""
        return self._stop.is_set() or self._task.done()

    async def ready(self) -> ClientSession:
        """Wait until it can be asked. Raises ``UpstreamUnreachable``."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), _START)
        except TimeoutError:
            reason = "it is not ready in time"
        except Exception as error:  # noqa: BLE001  # whatever a server does is a fault of the server
            if (wanted := self.reach.wants.of(error)) is not None:
                raise wanted from None
            reason = Cleaner(self.scrubber).text(str(error))[:300] or type(error).__name__
        said = f"; it says: {self.reach.said.text}" if self.reach.said.text else ""
        self._stop.set()
        name = self.bound.server.name
        raise UpstreamUnreachable(
            f"the server {name} cannot be used: {reason}{said}", f"how it is bound: keyhole mcp server show {name}"
        )

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[ClientSession]:
        """Keep it for a call, also when another takes its place meanwhile. Its errors are ours, without its values."""
        self._calls += 1
        self._idle.clear()
        try:
            yield await self.ready()
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def close(self, *, drain: float = 0.0) -> None:
        """End it, after the calls that go on, for so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), drain)
        self._stop.set()
        with contextlib.suppress(Exception):
            await self._task

    def answered(self, *, in_time: bool) -> None:
        """Note that it has answered, or not; one that answers nothing any more is ended."""
        self._late = 0 if in_time else self._late + 1
        if self._late >= _MOST_LATE:
            self._stop.set()

    def hurry(self) -> None:
        """Wait no longer for the calls that go on."""
        self._idle.set()

    async def _run(self) -> None:
        try:
            client = Client(
                _Once(self.reach.connected()),
                mode=self._mode,
                cache=None,
                read_timeout_seconds=None,  # ours ends it
                message_handler=self._heard,
                logging_callback=self.talk.logged,
                sampling_callback=self.talk.sample if "sampling" in self.bound.server.asks else None,
                elicitation_callback=self.talk.elicit if "elicitation" in self.bound.server.asks else None,
                client_info=types.Implementation(name="keyhole-gateway", version=__version__),
            )
            async with client:
                self._ready.set_result(client.session)
                await self.talk.listen(client.session, self._stop)
        except Exception as error:  # noqa: BLE001  # it is said to who waits for it
            if not self._ready.done():
                self._ready.set_exception(_first(error))
        finally:
            self._stop.set()
            self._idle.set()
            if not self._ready.done():
                self._ready.set_exception(UpstreamUnreachable("it ended at once"))
            if not self._ready.cancelled():
                self._ready.exception()  # nobody may have waited

    @property
    def calls(self) -> int:
        """How many go on."""
        return self._calls

    @property
    def server(self) -> ToolServer:
        """Its binding."""
        return self.bound.server

    async def _heard(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.stale = True
        self.talk.heard(message)


class _Once:
    """A transport, in the form in which the SDK enters it."""

    def __init__(self, connecting: AbstractAsyncContextManager[TransportStreams]) -> None:
        self._connecting = connecting

    async def __aenter__(self) -> TransportStreams:
        return await self._connecting.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._connecting.__aexit__(kind, error, trace)


class Loads(Protocol):
    """Reads what a server is started with, as whoever runs the gateway. Both may block."""

    def __call__(self) -> Bound:
        """Its binding and the values of its secrets, as of now."""

    def renew(self, stamp: str) -> str:
        """The stamp of what there is after the server has refused the token under this one."""


class Upstream:
    """A server, whatever becomes of it.

    Args:
        load: reads what it is started with.
        ways: how it is reached.
        say: is told what changes at it.

    Attributes:
        watched: URIs of resources of which a client wants to hear, and how many do.
        refused: names of its tools that are not offered, because they are the same, alike or odd.
        questions: bounds on what it asks.
    """

    def __init__(self, load: Loads, ways: Ways, say: Say = nobody) -> None:
        self.watched = Counter[str]()
        self.refused: tuple[str, ...] = ()
        self.questions = ways.questions
        self._say = say
        self._load = load
        self._ways = ways
        self._session: Session | None = None
        self._lock = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._tools: dict[str, Listed] = {}
        self._listed = 0.0
        self._wanted: Wanted | None = None
        self._leaving: dict[asyncio.Task[None], Session] = {}

    async def session(self, stamp: str = "") -> Session:
        """Its life of now, begun where there is none, or where the one there is has other keys than ``stamp`` says.

        Raises:
            UpstreamUnreachable: it cannot be used, or it ended and is not started again yet.
        """
        async with self._lock:
            session = self._session
            if session is not None and (
                session.ended or session.reach.worn or (stamp and session.bound.stamp != stamp)
            ):
                await self._leave(session)
                session = None
            if session is None:
                session = await self._begin()
            return session

    async def again(self, session: Session, wanted: Wanted) -> Session:
        """Its next life, with another token than the one that its server has refused. Raises ``wanted`` for none."""
        return await self.session(await self._renew(session.bound.stamp, wanted))

    def known(self, tool: str) -> Listed | None:
        """A tool as it was shown when it was last asked for."""
        return self._tools.get(tool)

    async def tools(self, *, fresh: bool = False) -> dict[str, Listed]:
        """The tools that it shows, by name. Raises ``UpstreamUnreachable``."""
        session = await self.session()
        try:
            return await self._shown(session, fresh=fresh)
        except Wanted as wanted:
            return await self._shown(await self.again(session, wanted), fresh=fresh)

    async def _shown(self, session: Session, *, fresh: bool) -> dict[str, Listed]:
        async with session.in_use() as client:
            age = time.monotonic() - self._listed
            if session.stale or age > (1.0 if fresh else _FRESH):
                session.stale = False  # what is said to have changed from now on is asked for once more
                try:
                    self._tools, self.refused = await self._list(session, client)
                except BaseException:
                    session.stale = True
                    raise
                self._listed = time.monotonic()
        return self._tools

    async def close(self) -> None:
        """End it."""
        if self._session is not None:
            await self._session.close()
        for session in self._leaving.values():
            session.hurry()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _list(self, session: Session, client: ClientSession) -> tuple[dict[str, Listed], tuple[str, ...]]:
        found: list[types.Tool] = []
        cursor, size = None, 0
        async with faults(session):
            for _ in range(_MOST_PAGES):
                page = await client.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
                found += page.tools
                cursor = page.next_cursor
                size += len(page.model_dump_json())
                if size > LARGEST_LIST:
                    raise UpstreamUnreachable(f"the list of tools of {session.bound.server.name} is too large")
                if not cursor or len(found) > _MOST_TOOLS:
                    break
            return _by_name(found[:_MOST_TOOLS], Cleaner(session.scrubber))

    async def _begin(self) -> Session:
        if time.monotonic() < self._not_before:
            if self._wanted is not None:
                raise self._wanted
            raise UpstreamUnreachable("the server ended, and is started again after a pause", "try again later")
        bound = await asyncio.to_thread(self._load)
        try:
            return await self._begin_with(bound)
        except Wanted as wanted:
            await self._renew(bound.stamp, wanted)
        return await self._begin_with(await asyncio.to_thread(self._load))

    async def _renew(self, stamp: str, wanted: Wanted) -> str:
        """The stamp of another token than the one that was refused under this one. Raises ``wanted`` for none."""
        found = stamp
        if wanted.renewable:
            with contextlib.suppress(KeyholeError):
                found = await asyncio.to_thread(self._load.renew, stamp)
        if found == stamp:
            raise wanted
        return found

    async def _begin_with(self, bound: Bound) -> Session:
        mode = "legacy" if self._failures % 2 else "auto"  # some end when they are asked what they do not know
        self._session = session = Session(bound, self._ways, mode, self._say, self.watched)
        try:
            await session.ready()
        except Wanted as wanted:
            self._wanted = wanted
            await self._leave(session, wanted=True)
            raise
        except KeyholeError:
            await self._leave(session)
            raise
        self._wanted = None
        return session

    async def _leave(self, session: Session, *, wanted: bool = False) -> None:
        """Let a life go: a pause where it has crashed, no pause where it is replaced."""
        self._session = None
        if wanted:
            self._not_before = time.monotonic() + _FIRST_PAUSE
        elif session.ended:
            lived = time.monotonic() - session.began
            self._failures = 1 if lived > _LIVED else self._failures + 1
            pause = 0.0 if self._failures < 2 else min(_FIRST_PAUSE * 2 ** (self._failures - 2), _LONGEST_PAUSE)
            self._not_before = time.monotonic() + pause
        task = asyncio.create_task(session.close(drain=_DRAIN))
        self._leaving[task] = session
        task.add_done_callback(self._leaving.pop)


@asynccontextmanager
async def faults(session: Session) -> AsyncIterator[Patience]:
    """What goes wrong in a server, as errors of ours without its values. Yields the time that it has."""
    try:
        async with asyncio.timeout(session.bound.server.timeout) as timeout:
            yield Patience(timeout)
        session.answered(in_time=True)
    except TimeoutError:
        session.answered(in_time=False)
        raise UpstreamTimeout("the server did not answer in time", "try again later") from None
    except MCPError as error:
        session.answered(in_time=True)
        raise session.reach.wants.of(error) or error from None
    except (KeyholeError, asyncio.CancelledError):
        raise
    except Exception as error:  # noqa: BLE001  # as above
        raise UpstreamUnreachable(
            f"the answer of the server {session.bound.server.name} cannot be used ({type(error).__name__})"
        ) from None


def _by_name(found: list[types.Tool], cleaner: Cleaner) -> tuple[dict[str, Listed], tuple[str, ...]]:
    """Tools by name, and the names of those that are the same, alike or odd, none of which is shown."""
    names = Counter(tool.name for tool in found)
    refused = look_alikes(names) | {name for name, count in names.items() if count > 1 or not is_tool_name(name)}
    shown = dict[str, Listed]()
    for tool in found:
        if tool.name not in refused:
            plain = cleaner.value(_plain(tool))
            for inner in ("_meta", "icons", "execution"):
                plain.pop(inner, None)
            digest = digest_of(plain)
            if not is_bounded(plain.get("outputSchema")):  # clients try its patterns on answers
                del plain["outputSchema"]
            shown[tool.name] = Listed(types.Tool.model_validate(plain), digest)
    return shown, tuple(cleaner.text(name)[:200] for name in sorted(refused))


def _plain(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return found


def _first(error: BaseException) -> Exception:
    """The first error of a group."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else UpstreamUnreachable(type(error).__name__)
