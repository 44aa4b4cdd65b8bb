"""``workflow run`` and ``workflow resume``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Session, interruptions, pass_session
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.names import agents
from keyhole.cli.workflow.checked import told
from keyhole.cli.workflow.noun import content_of, workflow
from keyhole.config import home
from keyhole.core.errors import Conflict, InvalidRequest, PolicyDenied

if TYPE_CHECKING:
    from keyhole.faces.workflow.document import Workflow
    from keyhole.faces.workflow.runner import Verdict
    from keyhole.faces.workflow.state import RunState, StateFile

FOUND, FAILED, WAITS = 1, 2, 4
_CODES = {"done": 0, "failed": FAILED, "doubt": FAILED, "waiting": WAITS}


@workflow.command(
    "run",
    examples="""
    keyhole workflow run invoice.yaml
    keyhole workflow run invoice.yaml --agent billing --input customer=c-17 --input amount=120
    """,
)
@click.argument("file", metavar="FILE")
@click.option("--agent", shell_complete=agents, default=DEFAULT_AGENT, show_default=True, help="Who acts.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=TEXT", help="What the workflow asks for; no value.")
@click.option("--on-behalf-of", default="", metavar="PERSON", help="Written into each audit record.")
@pass_session
def run_command(session: Session, /, *, file: str, agent: str, inputs: tuple[str, ...], on_behalf_of: str) -> int:
    """Do the steps of a workflow, each with the credentials that its service or tool has.

    Each attempt of a step has a token of its own, which names run and step in the audit trail and ends with it. A run
    that was cut off, or has failed, goes on with: keyhole workflow resume RUN.

    Exit code 1 when the document is refused, 2 when a step has failed or is in doubt, 4 when one waits for an approval.
    """
    from keyhole.core.identity import RunContext  # noqa: PLC0415  # --help needs none of it
    from keyhole.faces.workflow.inputs import take_inputs  # noqa: PLC0415  # the same
    from keyhole.faces.workflow.lint import lint  # noqa: PLC0415  # the same
    from keyhole.faces.workflow.state import RunState, StateFile  # noqa: PLC0415  # the same

    content = content_of(file)
    loaded = lint(content)
    if loaded.workflow is None or loaded.root is None:
        for line in told(file, loaded.problems):
            session.out.say(line)
        session.out.error(InvalidRequest(f"{file} is refused", f"keyhole workflow lint {file}"))
        return FOUND
    given = take_inputs(loaded.workflow, inputs)
    if problems := lint(content, given).problems:
        raise InvalidRequest(f"with these inputs {problems[0].reason}", problems[0].hint)
    with contextlib.suppress(PolicyDenied):  # whoever may make its tokens need not see it
        session.client.read(f"agents/{agent}")
    RunContext.from_data({"on_behalf_of": on_behalf_of})
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    document, name = loaded.root.plain(), loaded.workflow.name
    state = RunState(run, name, agent, session.where.location, document, given, on_behalf_of, round(time.time(), 3))
    made = StateFile.create(home(), state)
    session.out.say(f"run {run}")
    return _go(session, loaded.workflow, made, {})


@workflow.command(
    "resume",
    examples="""
    keyhole workflow resume 20270131-120000-9f8e7d6c
    keyhole workflow resume 20270131-120000-9f8e7d6c --done charge
    """,
)
@click.argument("run", metavar="RUN")
@click.option("--done", multiple=True, metavar="STEP", help="A step in doubt was done: go on behind it.")
@click.option("--repeat", multiple=True, metavar="STEP", help="A step in doubt was not done, or may be done twice.")
@pass_session
def resume_command(session: Session, /, *, run: str, done: tuple[str, ...], repeat: tuple[str, ...]) -> int:
    """Go on with a run that was cut off, has failed, or waited for an approval. No step that is done is done again.

    A step that was begun and did not end is made again when the journal shows that nothing was sent, or when it is
    idempotent or has an idempotency key. Any other one is in doubt, and you say which it is.
    """
    from keyhole.faces.workflow.state import StateFile  # noqa: PLC0415  # as above

    if both := set(done) & set(repeat):
        raise InvalidRequest(f"{min(both)} is either done or repeated", "name it once")
    file = StateFile.reopen(home(), run)
    try:
        found = _resumable(session, file.state)
        verdicts: dict[str, Verdict] = {**dict.fromkeys(done, "done"), **dict.fromkeys(repeat, "repeat")}
        file.resumed()
    except BaseException:
        file.close()
        raise
    return _go(session, found, file, verdicts)


def _resumable(session: Session, state: RunState) -> Workflow:
    """The workflow of a run that can go on here. Raises ``Conflict`` or ``InvalidRequest``."""
    from keyhole.faces.workflow.loading import load  # noqa: PLC0415  # as above
    from keyhole.faces.workflow.reading import LIMITS, ReadingLimits  # noqa: PLC0415  # the same

    if state.vault != session.where.location:
        raise Conflict("the run was begun with another vault", f"--vault {state.vault}")
    if state.ending == "done":
        raise Conflict(f"the run {state.run} is done", f"keyhole workflow show {state.run}")
    # It was read already, perhaps from YAML, which says the same in fewer bytes and counts otherwise.
    roomy = ReadingLimits(size=8 * LIMITS.size, depth=LIMITS.depth, nodes=4 * LIMITS.nodes)
    found = load(json.dumps(state.document, ensure_ascii=False).encode(), roomy).workflow
    if found is None:
        raise InvalidRequest(f"the file of the run {state.run} is damaged", "start a new run")
    return found


def _go(session: Session, found: Workflow, file: StateFile, verdicts: Mapping[str, Verdict]) -> int:
    run = file.state.run
    try:
        session.client.read("sys/keyhole")  # opens a local vault with its road at once
        ending, outputs = asyncio.run(_run(session, found, file, verdicts))
    except interruptions():
        session.out.warn(f"stopped; go on with: keyhole workflow resume {run}")
        raise
    finally:
        file.close()
    steps = {name: step.ended or {} for name, step in file.state.steps.items()}
    facts = {
        name: {key: gave[key] for key in ("result", "status", "error") if key in gave} for name, gave in steps.items()
    }
    data = {"run": run, "workflow": found.name, "ending": ending, "steps": facts, "outputs": outputs}
    shown = [f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in outputs.items()]
    session.out.result(data, shown if ending == "done" else ())
    session.out.say(f"run {run} {_SAID[ending].format(run=run)}")
    return _CODES[ending]


_SAID = {
    "done": "is done; who used what: keyhole workflow show {run} --uses",
    "failed": "has failed; when that is mended: keyhole workflow resume {run}",
    "waiting": "waits for an approval; after it: keyhole workflow resume {run}",
    "doubt": "has a step in doubt; look at keyhole workflow show {run} --uses, then say which it is:\n"
    "  keyhole workflow resume {run} --done STEP, or --repeat STEP",
}


async def _run(
    session: Session, found: Workflow, file: StateFile, verdicts: Mapping[str, Verdict]
) -> tuple[str, dict[str, Any]]:
    from keyhole.cli.workflow.tools import GatewayTools  # noqa: PLC0415  # as above
    from keyhole.core.identity import RunContext  # noqa: PLC0415  # as above
    from keyhole.faces.workflow.acting import Actor  # noqa: PLC0415  # as above
    from keyhole.faces.workflow.document import Use  # noqa: PLC0415  # as above
    from keyhole.faces.workflow.runner import Runner  # noqa: PLC0415  # as above

    state = file.state
    own = session.client.party()
    servers = frozenset(step.act.server for step in found.steps() if isinstance(step.act, Use))
    tools = GatewayTools(own, servers, session) if servers else None
    context = RunContext.from_data({"workflow": found.name, "run": state.run, "on_behalf_of": state.on_behalf_of})
    actor = Actor(own, session.client.party, state.agent, context, tools)
    runner = Runner(found, file, actor, lambda *told: _progress(session, *told), verdicts)
    try:
        return await runner.run(), runner.outputs()
    finally:
        if tools is not None:
            await tools.close()
        own.close()


def _progress(session: Session, step: str, what: str, facts: Mapping[str, Any]) -> None:
    """One line of progress."""
    how = " ".join(str(facts[name]) for name in ("result", "status") if facts.get(name))
    why = f": {facts['reason']}" if facts.get("reason") else ""
    took = f", {facts['ms']} ms" if facts.get("ms") else ""
    texts = {
        "begins": f"attempt {facts.get('attempt')}" if facts.get("attempt", 1) > 1 else "begins",
        "again": f"{how}{why}{took}; again in {facts.get('pause', 0):g} s",
        "ended": f"{how}{why if facts.get('result') != 'ok' else ''}{took}",
        "skipped": "skipped",
        "kept": f"{how} already{why}",
        "settled": f"was begun and cut off; made again, because {facts.get('reason')}",
        "doubt": f"in doubt{why}",
    }
    session.out.say(f"  {step}  {texts[what]}")
    if what == "ended" and facts.get("result") != "ok" and facts.get("hint"):
        session.out.say(f"    next: {facts['hint']}")
