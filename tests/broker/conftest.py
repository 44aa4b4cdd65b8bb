"""One stack for all tests of a module, on one event loop that runs while a test asks it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from broker.stack import Stack

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def module_stack(runner: asyncio.Runner) -> Iterator[Stack]:
    stack = Stack()
    runner.run(stack.__aenter__())
    yield stack
    runner.run(stack.__aexit__())


@pytest.fixture
def stack(module_stack: Stack) -> Stack:
    """The module's stack with an empty log and an upstream that answers 200."""
    module_stack.upstream.__dict__.update(say=type(module_stack.upstream)().say, early=False)
    module_stack.upstream.forget()
    return module_stack


@pytest.fixture
def run(runner: asyncio.Runner) -> Run:
    def within(job: Coroutine[Any, Any, Any]) -> Any:
        return runner.run(asyncio.wait_for(job, 60))

    return within
