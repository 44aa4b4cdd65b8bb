"""``workflow``: documents of steps, checked and run."""

from __future__ import annotations

from pathlib import Path

from keyhole.cli.base import group
from keyhole.core.errors import InvalidRequest


@group(
    "workflow",
    examples="""
    keyhole workflow lint invoice.yaml
    keyhole workflow run invoice.yaml --agent billing --input customer=c-17
    keyhole workflow resume RUN
    """,
)
def workflow() -> None:
    """Steps that name tools and services, and never a credential."""


def content_of(path: str) -> bytes:
    """What is in a file. Raises ``InvalidRequest``."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", "name a file") from None
