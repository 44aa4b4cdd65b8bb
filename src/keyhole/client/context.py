"""The work that this program does: its requests say so, and the audit trail shows it.

    with kh.context(workflow="billing", run="4711", step="charge"):
        kh.call("POST", "https://api.stripe.com/v1/charges", bearer="stripe/api-key")

Blocks nest: an inner one adds to the outer one. It is kept in a context variable, so that each task and each thread
has its own, and what ``asyncio.to_thread`` starts has that of who started it. Outside of any block it is what the
environment says: ``KEYHOLE_WORKFLOW``, ``KEYHOLE_RUN``, ``KEYHOLE_STEP``, ``KEYHOLE_TOOL`` and ``TRACEPARENT``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyhole.core.stated import Stated

VARIABLES = {f"KEYHOLE_{name.upper()}": name for name in ("workflow", "run", "step", "tool")}
PARENT = "TRACEPARENT"
"""As OpenTelemetry has it for environment variables."""
_said: ContextVar[Stated | None] = ContextVar("keyhole_context", default=None)


def current() -> Stated | None:
    """What is said now; ``None`` for nothing. Raises ``InvalidRequest`` for what the environment cannot mean."""
    inner, outer = _said.get(), of_environment(os.environ)
    return outer if inner is None else inner.over(outer)


def said() -> Stated | None:
    """What blocks of code say, without the environment: that of a server says nothing of its callers."""
    return _said.get()


def of_environment(environ: Mapping[str, str]) -> Stated | None:
    """What an environment says. Raises ``InvalidRequest`` for long or unprintable text."""
    claims = {name: environ[variable] for variable, name in VARIABLES.items() if environ.get(variable)}
    parent = environ.get(PARENT)
    return _stated(claims, parent) if claims or parent else None


def _stated(claims: Mapping[str, Any], parent: str | None) -> Stated | None:
    from keyhole.core.stated import Stated  # noqa: PLC0415  # most programs say nothing

    return Stated.of(claims, parent)


def headers(stated: Stated | None) -> dict[str, str]:
    """The header that says so, for a request to a vault or through its proxy; none for nothing."""
    if not stated:
        return {}
    from keyhole.core.stated import HEADER  # noqa: PLC0415  # as above

    return {HEADER: stated.header()}


@contextmanager
def context(
    *, workflow: str = "", run: str = "", step: str = "", tool: str = "", on_behalf_of: str = "", traceparent: str = ""
) -> Iterator[None]:
    """Say, for a block of code, which work its requests belong to.

    Args:
        workflow: name of the workflow.
        run: id of this run of it.
        step: id of the step within the run.
        tool: the consumer that acts.
        on_behalf_of: the person for whom it acts; refused where the token does not say so.
        traceparent: W3C trace context; one that is none does not count.

    Raises:
        InvalidRequest: a text is unprintable or has more than 200 characters.
    """
    claims = {"workflow": workflow, "run": run, "step": step, "tool": tool, "on_behalf_of": on_behalf_of}
    with within(_stated(claims, traceparent)):
        yield


@contextmanager
def within(stated: Stated | None) -> Iterator[None]:
    """As ``context``, of something that was said already."""
    outer = _said.get()
    token = _said.set(outer if stated is None else stated.over(outer))
    try:
        yield
    finally:
        _said.reset(token)
