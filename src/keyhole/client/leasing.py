"""``Client.lease``: a credential that is kept alive while it is used, and taken back when it is not.

One thread a lease does what ``tenure`` says is due, on a connection of its own, so that a slow call of the client's
delays no renewal. Every wait is bounded.
"""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from types import FrameType
from typing import TYPE_CHECKING, Any

from keyhole.client.core import Result
from keyhole.client.tenure import Tenure
from keyhole.core.errors import (
    AuditUnavailable,
    Expired,
    InvalidRequest,
    KeyholeError,
    NotFound,
    RateLimited,
    Sealed,
    StoreUnavailable,
    Unauthenticated,
    Unreachable,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from keyhole.core.path import parse_path

if TYPE_CHECKING:
    from keyhole.client.api import Transport

GRACE = 60.0
UNLEASED = 300.0
_TRIES = 3
_LEAVING = 5.0  # seconds to wait for a step that is under way when nobody wants it any more
_AWAY = (Unreachable, Sealed, StoreUnavailable, AuditUnavailable, RateLimited, UpstreamUnreachable, UpstreamTimeout)
_RENEW, _LOOKUP, _REVOKE = "sys/leases/renew", "sys/leases/lookup", "sys/leases/revoke"
_log = logging.getLogger("keyhole.client")


def uptime() -> float:
    """Seconds that pass also while the machine sleeps, where the system counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class Leased(Mapping[str, str]):
    """The fields of a credential as of now. What is read of it raises ``Expired`` once there is none that is good.

    Fields of one credential belong together: take ``fields()`` where two of them are needed.
    """

    def __init__(
        self,
        tenure: Tenure,
        lock: threading.Lock,
        clock: Callable[[], float],
        note: Callable[[Any], None] | None = None,
    ) -> None:
        self._tenure = tenure
        self._lock = lock
        self._clock = clock
        self._note = note

    def fields(self) -> dict[str, str]:
        """All of them, of one and the same credential. Raises ``Expired``."""
        with self._lock:
            found = dict(self._tenure.current(self._clock()).fields)
        if self._note is not None:
            self._note(found)
        return found

    @property
    def version(self) -> int:
        """Grows when there is another credential."""
        with self._lock:
            return self._tenure.version

    @property
    def lease_id(self) -> str:
        """Of the current credential; empty for one without a lease. Raises ``Expired``."""
        with self._lock:
            return self._tenure.current(self._clock()).lease_id

    @property
    def remaining(self) -> float:
        """Seconds for which the current credential is served, unless it is renewed; 0 when there is none."""
        with self._lock:
            return max(self._tenure.served_until() - self._clock(), 0.0)

    @property
    def failure(self) -> KeyholeError | None:
        """Why the last renewal or reading failed; ``None`` after one that did not."""
        with self._lock:
            return self._tenure.failure

    def __getitem__(self, name: str) -> str:
        return self.fields()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields())

    def __len__(self) -> int:
        return len(self.fields())

    def __repr__(self) -> str:
        return f"Leased({self._tenure.path!r})"


class Lease:
    """A credential for the length of a ``with`` block; see ``Client.lease``.

    Args:
        transport: of its own; closed at the end.
        source: as a service names it (``/database/creds/readonly``), or the API path.
        grace: seconds beyond nine tenths of its time for which it is served while no server can be asked.
        on_change: called, from another thread, with each later credential.
        revoke: take it back at the end.
        clock: elapsed seconds.
        note: told what is given out.
    """

    def __init__(
        self,
        transport: Transport,
        source: str,
        *,
        grace: float = GRACE,
        on_change: Callable[[Leased], object] | None = None,
        revoke: bool = True,
        clock: Callable[[], float] = uptime,
        note: Callable[[Any], None] | None = None,
    ) -> None:
        if not 0 <= grace <= 86_400:
            raise InvalidRequest("the grace of a lease is from 0 to 86,400 seconds", "leave it out for a minute")
        self._transport = transport
        self._path = parse_path(source.strip("/"))
        self._tenure = Tenure(self._path, grace, UNLEASED, random.random)
        self._on_change = on_change
        self._revokes = revoke
        self._clock = clock
        self._note = note
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._sigterm: Any = None

    def start(self) -> Leased:
        """Get the credential, and keep it alive from now on. Raises what reading it raises, after few tries."""
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                self._read()
            except _AWAY as error:
                if last:
                    self._transport.close()
                    raise
                self._ended.wait(min(error.retry_after or 0.3, 5.0))
            except BaseException:
                self._transport.close()
                raise
            else:
                break
        # What it renews is for the work that leased it, see ``client.context``.
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep,), name="lease", daemon=True)
        self._thread.start()
        return Leased(self._tenure, self._lock, self._clock, self._note)

    def stop(self) -> None:
        """Let it go: nothing is renewed any more, and what was leased is taken back. Never raises, never hangs."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_LEAVING)
        if self._thread is None or not self._thread.is_alive():
            self._give_back(self._transport)
            self._transport.close()
        else:  # it waits for a server, and closes what it uses when it is through
            other = self._transport.another()
            self._give_back(other)
            other.close()
        with self._lock:
            self._tenure.held = None

    def __enter__(self) -> Leased:
        self._catch_sigterm()
        try:
            return self.start()
        except BaseException:
            self._let_sigterm()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._let_sigterm()

    def _keep(self) -> None:
        while True:
            with self._lock:
                due, step = self._tenure.due()
            if self._ended.wait(max(due - self._clock(), 0.05)):
                return
            before = self._tenure.version
            self._renew() if step == "renew" else self._read_again()
            if self._ended.is_set():
                self._give_back(self._transport)
                self._transport.close()
                return
            if self._tenure.version != before and self._on_change is not None:
                try:
                    self._on_change(Leased(self._tenure, self._lock, self._clock, self._note))
                except Exception as error:  # noqa: BLE001  # a fault of the caller's must not end the renewals
                    _log.error("what was to be done with a new credential has failed (%s)", type(error).__name__)

    def _renew(self) -> None:
        began = self._clock()
        with self._lock:
            held = self._tenure.held
            self._tenure.asking(began)
        if held is None:
            return
        try:
            # The first time of the lease, as the server knows it: what it was capped to must not shrink it further.
            result = self._transport.ask("update", _RENEW, {"lease_id": held.lease_id})
        except _AWAY as error:
            with self._lock:
                self._tenure.unreachable(error, self._clock())
        except KeyholeError as error:
            gone = isinstance(error, Unauthenticated) or self._is_gone(held.lease_id)
            with self._lock:
                self._tenure.refused(error, self._clock(), gone=gone)
        else:
            with self._lock:
                self._tenure.renewed(result, began)

    def _is_gone(self, lease_id: str) -> bool:
        """Whether the vault knows nothing of a lease any more; not where it does not tell."""
        try:
            self._transport.ask("update", _LOOKUP, {"lease_id": lease_id})
        except (InvalidRequest, NotFound, Unauthenticated):
            return True
        except KeyholeError:
            return False
        return False

    def _read(self) -> None:
        began = self._clock()
        with self._lock:
            self._tenure.asking(began)
        result: Result = self._transport.ask("read", self._path, {})
        with self._lock:
            self._tenure.read(result, began)

    def _read_again(self) -> None:
        try:
            self._read()
        except _AWAY as error:
            with self._lock:
                self._tenure.unreachable(error, self._clock())
        except KeyholeError as error:
            with self._lock:
                self._tenure.refused(error, self._clock(), gone=isinstance(error, Unauthenticated | Expired))

    def _give_back(self, transport: Transport) -> None:
        """Take back what was leased. What cannot be taken back ends by itself, and is only said."""
        with self._lock:
            leases, self._tenure.past = self._tenure.past, []
        until = self._clock() + 2 * _LEAVING
        for lease_id in leases if self._revokes else []:
            if self._clock() > until:
                _log.warning("leases of %s are left to end by themselves: no server answers", self._path)
                return
            try:
                transport.ask("update", _REVOKE, {"lease_id": lease_id})
            except InvalidRequest:
                continue  # it has ended
            except KeyholeError as error:
                _log.warning("a lease of %s is left to end by itself: %s", self._path, error)

    def _catch_sigterm(self) -> None:
        """Leave the block also when the process is asked to end, unless somebody else minds that signal."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._sigterm = signal.signal(signal.SIGTERM, _leave)

    def _let_sigterm(self) -> None:
        if self._sigterm is not None:
            signal.signal(signal.SIGTERM, self._sigterm)
            self._sigterm = None


class AsyncLease:
    """The same for ``async with``; its waiting goes on in threads. See ``AsyncClient.lease``."""

    def __init__(self, lease: Callable[[], Lease]) -> None:
        self._make = lease
        self._lease: Lease | None = None

    async def __aenter__(self) -> Leased:
        import asyncio  # noqa: PLC0415  # slow to import, and blocking clients do without

        from keyhole.net.tasks import to_its_end  # noqa: PLC0415  # as above

        self._lease = lease = await asyncio.to_thread(self._make)
        lease._catch_sigterm()  # noqa: SLF001  # signals are the main thread's
        starting = asyncio.ensure_future(asyncio.to_thread(lease.start))
        try:
            return await to_its_end(starting)
        except BaseException:
            try:
                if starting.exception() is None:
                    with contextlib.suppress(KeyholeError):
                        await to_its_end(asyncio.ensure_future(asyncio.to_thread(lease.stop)))
            finally:
                lease._let_sigterm()  # noqa: SLF001  # as above
            raise

    async def __aexit__(self, *_: object) -> None:
        import asyncio  # noqa: PLC0415  # as above

        from keyhole.net.tasks import to_its_end  # noqa: PLC0415  # as above

        lease = self._lease
        if lease is None:
            return
        try:
            await to_its_end(asyncio.ensure_future(asyncio.to_thread(lease.stop)))
        finally:
            lease._let_sigterm()  # noqa: SLF001  # as above


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
