"""``env``: what a child of ``run`` would find in its environment."""

from __future__ import annotations

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.granted import DEFAULT_AGENT, granted
from keyhole.cli.names import agents


@command("env", examples="keyhole env\nkeyhole env --agent coder --json")
@click.option("--agent", shell_complete=agents, default=DEFAULT_AGENT, show_default=True, help="Whose environment.")
@pass_session
def env_command(session: Session, /, *, agent: str) -> None:
    """Names and placeholders that ``run`` sets for an agent, and where the keys behind them may go.

    A placeholder has the shape of a key and is none: the broker puts the key in its place.
    """
    gets = granted(session.client, agent)
    data = [
        {"variable": v.name, "placeholder": v.placeholder, "service": v.service, "secret": v.secret}
        for v in gets.variables
    ]
    rows = [
        (v.name, v.placeholder, ", ".join(gets.services[v.service]["hosts"]), v.secret.removesuffix("#value"))
        for v in gets.variables
    ]
    data += [{"variable": name, "placeholder": "", "service": "", "secret": ""} for name in gets.files]
    rows += [(name, "a file, made for each run", "", "") for name in gets.files]
    empty = f"nothing: no service of {agent} names a variable; what it may call: keyhole what-can {agent}"
    session.out.table(data, ("variable", "placeholder", "hosts", "secret"), rows, empty=empty)
    for variable in gets.hidden:
        session.out.warn(f"{variable.name} of the service {variable.service} is taken by another service")
