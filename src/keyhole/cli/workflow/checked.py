"""``workflow lint`` and ``workflow schema``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.workflow.noun import content_of, workflow

if TYPE_CHECKING:
    from keyhole.faces.workflow.problem import Problem

FOUND = 1


@workflow.command("lint", examples="keyhole workflow lint invoice.yaml\nkeyhole workflow lint *.json --json")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--compare", is_flag=True, help="Compare with the secrets that you may read; each read is recorded.")
@pass_session
def lint_command(session: Session, /, *, files: tuple[str, ...], compare: bool) -> int:
    """Check documents, and refuse any credential in them. Exit code 1 when something is wrong.

    Refused are texts that have the shape of a credential, plain or encoded, also in names, defaults and comments; what
    stands in a place that is called after one; texts that look drawn; and references to the environment or to a secret.
    """
    from keyhole.faces.workflow.lint import lint  # noqa: PLC0415  # --help needs none of it

    known = None
    if compare:
        from keyhole.cli.scan_known import read_values  # noqa: PLC0415  # the same
        from keyhole.scrub import Scrubber  # noqa: PLC0415  # the same

        known = Scrubber.compile(read_values(session))
    data, lines = [], []
    for path in files:
        found = lint(content_of(path), known=known).problems
        data += [{"file": path, **problem.as_data()} for problem in found]
        lines += told(path, found)
    session.out.result({"problems": data}, lines)
    if not data:
        session.out.say(f"nothing is wrong with {', '.join(files)}")
    return FOUND if data else 0


def told(path: str, problems: Iterable[Problem]) -> list[str]:
    """Problems for a person, as compilers say them."""
    return [
        f"{path}:{each.line}:{each.column}: {each.reason} [{each.rule}]{f' at {each.where}' if each.where else ''}\n"
        f"  next: {each.hint}"
        for each in problems
    ]


@workflow.command("schema", examples="keyhole workflow schema > workflow.schema.json")
@pass_session
def schema_command(session: Session, /) -> None:
    """Print the JSON Schema of workflows, for editors."""
    from keyhole.faces.workflow.schema import schema  # noqa: PLC0415  # as above

    session.out.result(schema(), json.dumps(schema(), indent=2))
