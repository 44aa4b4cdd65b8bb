"""``scrub``: stdin to stdout, without credentials."""

from __future__ import annotations

import os
import select

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.core.errors import InvalidRequest

_PIECE = 1 << 16
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0", b"PK\x03\x04")
_IDLE = 0.2  # seconds without input after which a line leaves that is not ended


@command(
    "scrub",
    examples="""
    make deploy 2>&1 | keyhole scrub
    make deploy 2>&1 | keyhole scrub --compare     # values of the vault too, in every encoding
    keyhole scrub < build.log > build.clean.log
    """,
)
@click.option(
    "--compare", is_flag=True, help="Values that you may read, too, in every encoding; each read is recorded."
)
@click.option("--no-shapes", is_flag=True, help="With --compare: leave alone what only looks like a credential.")
@pass_session
def scrub_command(session: Session, /, *, compare: bool, no_shapes: bool) -> None:
    """Copy stdin to stdout, and put * in the place of each byte of a credential.

    What looks like one is masked: keys of known services, private keys, passwords in addresses and assignments. With
    --compare values of the vault are, in every form that answers are scrubbed of. Lines leave when they are whole.
    """
    from keyhole.scrub import Scrubber  # noqa: PLC0415  # --help needs none of it
    from keyhole.scrub.lines import JsonLines  # noqa: PLC0415
    from keyhole.scrub.shaped import ShapeStream  # noqa: PLC0415

    if no_shapes and not compare:
        raise InvalidRequest("then there is nothing to look for", "keyhole scrub --compare --no-shapes")
    values: list[bytes] = []
    if compare:
        from keyhole.cli.scan_known import read_values  # noqa: PLC0415

        values = list(read_values(session))
    begun = False
    known, lines = Scrubber.compile(values).stream(), JsonLines()
    shapes = None if no_shapes else ShapeStream()
    while True:
        ready = bool(select.select([0], [], [], _IDLE)[0])
        piece = os.read(0, _PIECE) if ready else b""
        if ready and not piece:
            break
        if not ready:
            _write(lines.feed(shapes.idle() if shapes is not None else b"") + lines.idle())
            continue
        if not begun and piece.startswith(_COMPRESSED):
            session.out.warn("the stream is compressed and passes as it is: decompress it before")
        begun = True
        piece = known.feed(piece)
        _write(lines.feed(shapes.feed(piece) if shapes is not None else piece))
    rest = known.finish()
    rest = shapes.feed(rest) + shapes.finish() if shapes is not None else rest
    _write(lines.feed(rest) + lines.finish())
    if shapes is not None and shapes.found:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(shapes.found.items()))
        session.out.say(f"masked what looks like a credential: {kinds}")


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
