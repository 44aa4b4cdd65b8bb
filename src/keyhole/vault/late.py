"""Parts of a vault that are made when they are first asked for: a command on a local vault asks few of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar, overload

_Part = TypeVar("_Part")


def late_function(where: str) -> Callable[..., Any]:
    """A function that is imported when it is called: ``MODULE:NAME`` of this package."""
    module, _, name = where.partition(":")

    def late(*given: Any) -> Any:
        return getattr(import_module(f"keyhole.vault.{module}"), name)(*given)

    return late


class Late(Generic[_Part]):
    """An attribute whose value is made when it is first read.

    Args:
        where: ``MODULE:CLASS`` of this package; the class gets the object whose attribute it is.
        options: that the class gets besides.
    """

    def __init__(self, where: str, **options: Any) -> None:
        self._where = where
        self._options = options

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, whole: None, _owner: type) -> Late[_Part]: ...

    @overload
    def __get__(self, whole: object, _owner: type) -> _Part: ...

    def __get__(self, whole: object | None, _owner: type) -> Late[_Part] | _Part:
        if whole is None:
            return self
        module, _, name = self._where.partition(":")
        part: _Part = getattr(import_module(f"keyhole.vault.{module}"), name)(whole, **self._options)
        vars(whole)[self._name] = part
        return part
