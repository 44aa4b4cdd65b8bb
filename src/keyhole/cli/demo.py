"""``keyhole demo``: see it work, with nothing set up and nothing left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from keyhole.cli.base import Session, command, pass_session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from keyhole.demo import Outcome, Scene

_WIDTH = 118


def show(outcome: Outcome, console: Console) -> None:
    """Print the scenes side by side, the audit records, and what they add up to."""
    from rich.padding import Padding  # noqa: PLC0415  # slow to load
    from rich.text import Text  # noqa: PLC0415

    from keyhole import demo  # noqa: PLC0415

    console.print()
    console.print(Text("A vault, the broker, an API and an agent, all on this machine.", "bold"))
    console.print(
        f"The vault lends {demo.SECRET} to {demo.HOST} only, in the header Authorization. "
        f"The agent was given {demo.VARIABLE}, a placeholder, and an ordinary HTTP client.",
        highlight=False,
    )
    for scene in outcome.scenes:
        console.print()
        console.print(Text(scene.title, "bold cyan"))
        for line in scene.command.split("\n"):
            console.print(Padding(Text(f"$ {line}", "dim"), (0, 2)))
        console.print(_scene(scene))
    console.print()
    console.print(Text("The audit trail of the agent", "bold cyan"))
    console.print(_records(outcome.records))
    valid = "every chain and signature is right" if outcome.verified.get("valid") else "DAMAGED"
    console.print(f"  {outcome.verified.get('records', 0)} records in all; {valid}", highlight=False)
    console.print()
    for line in outcome.missing:
        console.print(Text(f"not in the sandbox here: {line}", "yellow"))
    verdict = (
        Text("The API got the right key twice. The agent never had it.", "bold green")
        if outcome.true
        else Text("This did not go as it has to: please report it with this output.", "bold red")
    )
    console.print(verdict)


def _scene(scene: Scene) -> Table:
    from rich.box import ROUNDED  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=ROUNDED, expand=True, border_style="green" if scene.true else "red")
    table.add_column("what the agent saw", ratio=3, overflow="fold")
    table.add_column("what the API received", ratio=2, overflow="fold")
    received = Text("\n".join(scene.received)) if scene.received else Text("nothing", "dim")
    table.add_row(Text(scene.saw), received)
    return table


def _records(records: list[dict[str, Any]]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("time", "phase", "secret", "what", "result"):
        table.add_column(name, overflow="fold")
    for record in records:
        host = record.get("host", "").partition(":")[0]
        what = (
            f"{record['method']} {host}{record.get('target', '')}"
            if host
            else f"{record['operation']} {record['path']}"
        )
        status = f" {record['status']}" if "status" in record else ""
        masked = ", masked" if record.get("scrubbed") else ""
        row = (record["time"][11:19], str(record["phase"]), ", ".join(record.get("secrets", ())), what)
        style = "red" if record["phase"] == "refused" else ""
        table.add_row(*row, f"{record.get('result', '')}{status}{masked}", style=style)
    return table


@command("demo", examples="keyhole demo\nkeyhole demo --json")
@pass_session
def demo_command(session: Session, /) -> int:
    """See it work: a vault, the broker, an API and an agent on this machine.

    Needs no internet and leaves nothing behind. Ends with 1 when anything went otherwise than it has to.
    """
    from keyhole.demo import perform  # noqa: PLC0415  # loads all of Keyhole
    from keyhole.process import harden_process  # noqa: PLC0415

    harden_process()
    outcome = asyncio.run(perform())
    if session.out.json:
        session.out.result(outcome.as_data())
    else:
        from rich.console import Console  # noqa: PLC0415  # slow to load

        show(outcome, Console(width=min(Console().width, _WIDTH)))
    return 0 if outcome.true else 1
