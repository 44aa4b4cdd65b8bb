"""A vault as tools ask it: each reads with a token of its own, which names the tool in the audit trail."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

from keyhole.client import Client
from keyhole.client.fetched import is_heard
from keyhole.client.party import Party
from keyhole.core.errors import KeyholeError, PolicyDenied, Unauthenticated

_TTL = 3600.0  # seconds
_EARLY = 300.0  # seconds before its end that a token is replaced


class ToolVault:
    """See ``tool.Source``.

    A caller that may not make tokens reads with its own; its records then name the tool as said by the caller.

    Args:
        client: of the caller.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Party, str, float]] = {}

    def read_as(self, tool: str, path: str) -> Mapping[str, Any]:
        """The fields at a path, read on behalf of a tool."""
        try:
            found = self._party(tool).ask("read", path)
        except Unauthenticated:  # the tool's token was ended by somebody else, or with the server
            self._forget(tool)
            found = self._party(tool).ask("read", path)
        if is_heard():  # logs are kept clean also of what is written after the end of the call
            self._client.fetched.note_answer(path, found.data, leased=bool(found.lease_id))
        return found.data

    def lease_for(self, source: str) -> Any:
        """Something leased for the block; its values are the same in it to the end."""
        return self._client.lease(source)

    def close(self) -> None:
        """End the tokens of the tools."""
        with self._lock:
            known, self._known = self._known, {}
        for party, accessor, _ in known.values():
            party.close()
            self._end(accessor)

    def _party(self, tool: str) -> Party:
        with self._lock:
            party, accessor, until = self._known.get(tool, (None, "", 0.0))
            if party is not None and time.monotonic() < until:
                return party
            try:
                auth = self._client.write("auth/token/create", {"ttl": f"{_TTL:.0f}s", "tool": tool}).auth or {}
                lives = float(auth.get("lease_duration") or _TTL)  # not longer than what it was made with
                made = (
                    self._client.party(str(auth["client_token"])),
                    str(auth["accessor"]),
                    time.monotonic() + lives - min(_EARLY, lives / 10),
                )
            except PolicyDenied:
                made = self._client.party(), "", time.monotonic() + _TTL
            self._known[tool] = made
        if party is not None:
            party.close()
            self._end(accessor)
        return made[0]

    def _forget(self, tool: str) -> None:
        with self._lock:
            party, accessor, _ = self._known.pop(tool, (None, "", 0.0))
        if party is not None:
            party.close()
            self._end(accessor)

    def _end(self, accessor: str) -> None:
        if accessor:
            with contextlib.suppress(KeyholeError):  # it ends by itself as well
                self._client.write("auth/token/revoke-accessor", {"accessor": accessor})
