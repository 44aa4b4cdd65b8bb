"""The command line: one noun a file. Importing this package imports none of it."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run one command, and give its exit code. See ``keyhole.cli.entry``."""
    from keyhole.cli.entry import main as run  # noqa: PLC0415  # Python programs that use the client need no click

    return run(args)
