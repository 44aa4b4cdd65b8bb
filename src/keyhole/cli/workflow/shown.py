"""``workflow list`` and ``workflow show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.uses import HEAD, cells, uses
from keyhole.cli.workflow.noun import workflow
from keyhole.config import home
from keyhole.core.errors import PolicyDenied

if TYPE_CHECKING:
    from keyhole.faces.workflow.state import RunState, StepState


@workflow.command("list", examples="keyhole workflow list\nkeyhole workflow list --json")
@pass_session
def list_command(session: Session, /) -> None:
    """Runs on this machine, the latest first."""
    from keyhole.faces.workflow.state import runs, shown_time  # noqa: PLC0415  # --help needs none of it

    found = [
        {
            "run": each.run,
            "workflow": each.workflow,
            "agent": each.agent,
            "state": _state(each),
            "ended": sum(1 for step in each.steps.values() if step.ended is not None),
            "started": shown_time(each.started),
        }
        for each in runs(home())
    ]
    rows = [[str(each[name]) for name in ("run", "workflow", "agent", "state", "ended", "started")] for each in found]
    head = ["run", "workflow", "agent", "state", "steps ended", "started"]
    session.out.table(found, head, rows, empty="there are no runs on this machine")


@workflow.command(
    "show",
    examples="""
    keyhole workflow show 20270131-120000-9f8e7d6c
    keyhole workflow show 20270131-120000-9f8e7d6c --uses
    """,
)
@click.argument("run", metavar="RUN")
@click.option("--uses", "used", is_flag=True, help="Which credential each step used, when and with what result.")
@pass_session
def show_command(session: Session, /, *, run: str, used: bool) -> None:
    """What each step of a run gave; with --uses, which credential it used, by the journal.

    With --json also the bodies, as they were kept: scrubbed.
    """
    from keyhole.faces.workflow.state import look, parse_run, shown_time  # noqa: PLC0415  # as above

    if used:
        _uses(session, parse_run(run))
        return
    state = look(home(), run)
    steps = {name: _facts(step) for name, step in state.steps.items()}
    data = {
        "run": run,
        "workflow": state.workflow,
        "agent": state.agent,
        "state": _state(state),
        "started": shown_time(state.started),
        "inputs": state.inputs,
        "steps": steps,
    }
    head = f"{state.workflow} as {state.agent}, {_state(state)}, started {shown_time(state.started)}"
    session.out.result(data, [head, *(f"  {name}  {_line(step)}" for name, step in state.steps.items())])


def _uses(session: Session, run: str) -> None:
    """By the whole journal where it may be read, else by the caller's own records."""
    asked = {"run": run, "limit": "10000"}
    try:
        records = session.client.read("sys/audit-log", **asked).data["records"]
    except PolicyDenied:
        records = session.client.read("sys/own/audit-log", **asked).data["records"]
    found = uses(records)
    session.out.table(found, HEAD, [cells(use) for use in found], empty="no credential was used there")


def _state(state: RunState) -> str:
    from keyhole.faces.workflow.state import is_running  # noqa: PLC0415  # as above

    if state.ending:
        return {"waiting": "waits for an approval", "doubt": "a step is in doubt"}.get(state.ending, state.ending)
    return "running" if is_running(home(), state.run) else "cut off"


def _facts(step: StepState) -> dict[str, Any]:
    from keyhole.faces.workflow.state import shown_time  # noqa: PLC0415  # as above

    gave = step.ended if step.ended is not None else {"result": "begun"}
    return {**gave, "attempts": step.attempts, "begun": shown_time(step.begun), "ms": step.ms}


def _line(step: StepState) -> str:
    if step.ended is None:
        return "begun, and its end is not known"
    gave = step.ended
    words = [gave["result"], str(gave.get("status", "")), f"{step.ms} ms" if step.ms else ""]
    words += [f"after {step.attempts} attempts" if step.attempts > 1 else "", gave.get("reason", "")]
    body = json.dumps(gave.get("body"), ensure_ascii=False) if gave.get("body") is not None else ""
    return "  ".join(word for word in [*words, body[:100] + ("…" if len(body) > 100 else "")] if word)
