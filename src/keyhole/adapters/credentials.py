"""What a tool is given for one call: its secrets by the names that it has for them, until the call ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest


class Credentials(Mapping[str, Any]):
    """The secrets of one call.

    ``credentials.token`` and ``credentials["token"]`` are the value of the secret that the tool calls ``token``; of a
    secret with several fields, or something leased, an object of the same kind with its fields. When the call has
    ended, nothing is there any more.

    Args:
        values: by name.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values: dict[str, Any] | None = {
            name: Credentials(value) if isinstance(value, Mapping) else value for name, value in values.items()
        }

    def __getitem__(self, name: str) -> Any:
        if self._values is None:
            raise InvalidRequest("the call that these credentials were for has ended", "fetch nothing beyond the call")
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this tool needs no {name!r}: name it in needs") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values or ())

    def __len__(self) -> int:
        return len(self._values or ())

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Raises ``TypeError``: they are not written anywhere."""
        raise TypeError("credentials are not pickled or copied")

    def drop(self) -> None:
        """Forget everything."""
        for value in (self._values or {}).values():
            if isinstance(value, Credentials):
                value.drop()
        self._values = None


def texts(values: Any) -> Iterator[bytes]:
    """All texts in values, and their numbers as they are written, as bytes."""
    if isinstance(values, Mapping):
        for value in values.values():
            yield from texts(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from texts(value)
    elif isinstance(values, str):
        yield values.encode(errors="surrogatepass")
    elif isinstance(values, bytes):
        yield values
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield str(values).encode()
