"""Writes what a broker notes of calls to a HAR file, for as long as a command runs or somebody looks on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from keyhole.cli.har import HarFile, entry_of_call
from keyhole.core.errors import KeyholeError, NotFound

if TYPE_CHECKING:
    from keyhole.client import Client

_PATH = "sys/capture"
_FOR = 300  # seconds for which the broker notes calls without being asked again
_EVERY = 2.0  # seconds between two looks


class Recorder:
    """One capture of a broker and the file that it goes to.

    Args:
        client: asks the vault, as an operator.
        file: where the calls go.
        accessor: of the token whose calls are wanted; empty for all.
        wants: whether a call goes into the file.

    Attributes:
        failure: why the rest could not be read, if so.
        missed: calls that were forgotten before they were read.
    """

    def __init__(
        self,
        client: Client,
        file: HarFile,
        accessor: str = "",
        wants: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    ) -> None:
        self._client = client
        self._file = file
        self._wanted = {"for": f"{_FOR}s", **({"accessor": accessor} if accessor else {})}
        self._after = 0
        self._wants = wants
        self.failure: KeyholeError | None = None
        self.missed = 0
        self._begin()

    @property
    def count(self) -> int:
        """Calls written."""
        return self._file.count

    def _begin(self) -> None:
        self._id = str(self._client.write(_PATH, self._wanted).data["id"])
        self._after = 0
        self._again = time.monotonic() + _FOR / 2

    def read(self) -> None:
        """Write what came since. Raises ``KeyholeError``."""
        while True:
            try:
                data = self._client.read(f"{_PATH}/{self._id}", after=self._after).data
            except NotFound:  # the vault was sealed meanwhile, or nobody could ask for too long
                self._begin()
                return
            calls = data["calls"]
            self._file.add(entry_of_call(call) for call in calls if self._wants(call))
            self.missed += data["missed"]
            if not calls:
                break
            self._after = calls[-1]["number"]
        if time.monotonic() > self._again:
            self._client.write(f"{_PATH}/{self._id}", {"for": f"{_FOR}s"})
            self._again = time.monotonic() + _FOR / 2

    def end(self) -> None:
        """Read the rest, and switch the capture off."""
        self.read()
        with suppress(NotFound):
            self._client.delete(f"{_PATH}/{self._id}")


@contextmanager
def recording(client: Client, path: str, accessor: str) -> Iterator[Recorder]:
    """Write the calls of a token to a file while the block runs, in a thread that has the client for itself.

    Raises:
        InvalidRequest: the file cannot be written.
        KeyholeError: the capture cannot be switched on.
    """
    with HarFile(path) as file:
        recorder = Recorder(client, file, accessor)
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(_EVERY):
                with suppress(KeyholeError):  # asked again, and at the end once more
                    recorder.read()

        thread = threading.Thread(target=work, name="keyhole-capture", daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            stop.set()
            thread.join()
            try:
                recorder.end()
            except KeyholeError as error:  # the command's own end is not to be lost for that
                recorder.failure = error
