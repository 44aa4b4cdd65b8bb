"""``run``: a command as an agent, with placeholders instead of keys and its HTTPS through the broker."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Command, Session, pass_session
from keyhole.cli.granted import DEFAULT_AGENT, FromThread, Granted, bindings, granted
from keyhole.cli.names import agents, command_line
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.path import fields_of, parse_shown_ref, revealing
from keyhole.core.service import Service
from keyhole.core.sql import SQL
from keyhole.core.ssh import SSH, known_hosts
from keyhole.core.stated import Stated
from keyhole.core.value import Secret
from keyhole.faces.run.child import run_child
from keyhole.faces.run.plan import OWN_FAILURE, Database, RunPlan, SandboxReport, SshHost

if TYPE_CHECKING:
    from keyhole.faces.run.agentsecrets.names import Wish

_SQLITE = "sqlite:"
_POSTGRES = ("postgres:", "postgresql:")
# What opens the store's database to whoever has it, with the files that libpq reads when nothing is said.
_OPENING = {
    "PGPASSWORD": "",
    "PGPASSFILE": "~/.pgpass",
    "PGSERVICEFILE": "~/.pg_service.conf",
    "PGSSLKEY": "~/.postgresql/postgresql.key",
}


class ChildCommand(Command):
    """A command that ends with its child's exit code, so that its own mistakes are 125, as in docker."""

    def make_context(self, *args: Any, **attributes: Any) -> click.Context:
        """Turn a usage error into a message and 125."""
        try:
            return super().make_context(*args, **attributes)
        except click.UsageError as error:
            session = error.ctx.find_object(Session) if error.ctx is not None else None
            (session or Session()).out.error(InvalidRequest(error.format_message(), "keyhole run --help"))
            raise click.exceptions.Exit(OWN_FAILURE) from None


def _named(context: click.Context, _parameter: click.Parameter, argv: tuple[str, ...]) -> tuple[str, ...]:
    if argv and not argv[0]:
        raise click.UsageError("the command is empty", context)
    return argv


@click.command(
    "run",
    cls=ChildCommand,
    examples="""
    keyhole run -- claude
    keyhole run --agent coder --sandbox require -- npm test
    keyhole run --allow-local 5432 -- ./manage.py test         # a server of this machine stays within reach
    keyhole run --env PGPASSWORD=db/prod#password -- psql      # this one gets the real value: needs read
    """,
    context_settings={"allow_interspersed_args": False},
)
@click.argument(
    "argv",
    callback=_named,
    shell_complete=command_line,
    nargs=-1,
    required=True,
    metavar="COMMAND [ARGUMENTS]…",
)
@click.option(
    "--agent", shell_complete=agents, default=DEFAULT_AGENT, show_default=True, help="Who the command acts as."
)
@click.option(
    "--env", "reveal", multiple=True, metavar="[VARIABLE=]SECRET", help="Give the real value of this one; needs read."
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "require", "off"]),
    default="auto",
    show_default=True,
    help="Shut the command in where the system allows it, or not without, or not at all.",
)
@click.option(
    "--network",
    type=click.Choice(["auto", "broker", "host"]),
    default="auto",
    show_default=True,
    help="Leave it nothing but the broker where the system allows that, or always, or leave it the machine's network.",
)
@click.option(
    "--allow-local",
    multiple=True,
    metavar="PORT|SOCKET",
    help="A server of this machine that it may reach: a port of loopback, or the path of a Unix socket.",
)
@click.option(
    "--transparent", is_flag=True, help="Serve its clients that know nothing of a proxy too, by the names they ask for."
)
@click.option("--capture", metavar="FILE", help="Write what its calls look like to a HAR file, without any value.")
@click.option(
    "--agentsecrets-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Where the SDK of AgentSecrets is served; 0 for a free one.",
)
@click.option("--no-scrub", is_flag=True, help="Let the command print the values of --env.")
@click.option("--ttl", default="24h", show_default=True, help="How long its token may live at most.")
@pass_session
def run_command(
    session: Session,
    /,
    *,
    argv: tuple[str, ...],
    agent: str,
    reveal: tuple[str, ...],
    sandbox: str,
    network: str,
    allow_local: tuple[str, ...],
    transparent: bool,
    capture: str | None,
    agentsecrets_port: int | None,
    no_scrub: bool,
    ttl: str,
) -> int:
    """Run a command that uses credentials and never has them.

    It finds placeholders in its environment, and the broker as its proxy: there a placeholder's place is taken by the
    key, for the hosts that the agent's services name and for no others. Its token can do nothing else and ends with it.

    Where the system allows it, it lives in a network of its own, in which only the broker is to be reached, and the
    servers of this machine that --allow-local names.

    What --env gives it is masked in what it prints.

    The exit code is the command's own; 125 when we failed, 126 when it cannot be executed, 127 when it is not there.
    """
    from keyhole.process import harden_process  # noqa: PLC0415  # --help needs no ctypes

    try:
        wishes = _wishes(sandbox, network, allow_local, transparent=transparent)
        harden_process()
        session.client.read("sys/keyhole")  # opens a local vault with its road at once, which spares a second opening
        gets = granted(session.client, agent)
        values = _revealed(session, gets, reveal)
        with _token(session, agent, ttl, argv[0]) as made, closing(session.client.party()) as party:
            own = made.get("placeholders") or {}
            gets = gets.for_session(own)
            road = session.client.road(str(made["token"]))
            plan = RunPlan(
                argv,
                road.url,
                road.ca.encode(),
                gets.placeholders,
                values,
                hidden_paths(session),
                withheld=tuple(_OPENING) if _in_database(session) else (),
                agentsecrets=_agentsecrets(gets, own, FromThread(party), agentsecrets_port),
                scrub=not no_scrub,
                adopt=road.adopt,
                **wishes,
                **_of_services(gets),
            )
            _introduce(session, gets, plan)
            with _captured(session, capture, str(made["accessor"])):
                return _run(session, plan)
    except KeyholeError as error:
        session.out.error(error)
        return OWN_FAILURE


def _run(session: Session, plan: RunPlan) -> int:
    """Run the command. What is loaded meanwhile is what is there now, whatever it does to our files."""
    if plan.sandbox != "off":
        session.pin_code()
    return asyncio.run(run_child(plan, on_sandbox=lambda report: _tell(session, report)))


def _of_services(gets: Granted) -> dict[str, Any]:
    """What the agent's services bring into the plan of a command."""
    return {
        "files": _files(gets),
        "databases": _databases(gets),
        "logins": _logins(gets),
        "served": _served(gets),
    }


def _files(gets: Granted) -> dict[str, bytes]:
    """The files of the agent's services. A key in them is made here and now, and known to nobody else."""
    if not gets.files:
        return {}
    from keyhole.crypto.throw_away import MARK, rsa_key  # noqa: PLC0415  # few commands need it, and it takes its time

    wanted = any(MARK in text for text in gets.files.values())
    key = json.dumps(rsa_key())[1:-1] if wanted else ""
    return {variable: text.replace(MARK, key).encode() for variable, text in gets.files.items()}


def _databases(gets: Granted) -> tuple[Database, ...]:
    """The databases that the agent may open sessions with."""
    found = [Service.from_data(name, data) for name, data in sorted(gets.services.items())]
    return tuple(
        Database(service.name, service.schemes[0], str(service.hosts[0]), service.inject["database"])
        for service in found
        if service.inject.kind == SQL
    )


def _logins(gets: Granted) -> tuple[SshHost, ...]:
    """The hosts that the agent may log in to by SSH."""
    found = [Service.from_data(name, data) for name, data in sorted(gets.services.items())]
    return tuple(
        SshHost(s.name, host.host, host.port, s.inject["user"], tuple(known_hosts(host, s.inject["host_keys"])))
        for s in found
        if s.inject.kind == SSH
        for host in s.hosts
    )


def _agentsecrets(
    gets: Granted, own: Mapping[str, Mapping[str, str]], vault: FromThread, port: int | None
) -> Wish | None:
    """The port for the SDK of AgentSecrets; for an agent without any service only where it is asked for."""
    if not gets.services and port is None:
        return None
    from keyhole.faces.run.agentsecrets.names import Wish  # noqa: PLC0415  # --help needs none

    def services() -> dict[str, Service]:
        found = bindings(vault, gets.agent)
        return {name: Service.from_data(name, data) for name, data in found.items()}

    texts = {name: next(iter(pairs.values())) for name, pairs in own.items() if pairs}
    return Wish(gets.agent, services, texts, port or 0)


@contextmanager
def _captured(session: Session, path: str | None, accessor: str) -> Iterator[None]:
    """Write the calls of the command's token to a file, if that is wanted."""
    if path is None:
        yield
        return
    from keyhole.cli.capture import recording  # noqa: PLC0415  # few runs need it

    with recording(session.client, path, accessor) as recorder:
        yield
    session.out.say(f"keyhole: {recorder.count} calls in {path}")
    if recorder.failure is not None:
        session.out.warn(f"the rest of the calls could not be read: {recorder.failure}")
    if recorder.missed:
        session.out.warn(f"{recorder.missed} calls came too fast to be captured")


def _introduce(session: Session, gets: Granted, plan: RunPlan) -> None:
    values = plan.reveal
    for path in plan.sockets:
        if not path.is_socket():
            session.out.warn(f"--allow-local: nobody has opened a socket {path}")
    for variable in gets.hidden:
        session.out.warn(f"{variable.name} of the service {variable.service} is taken by another service")
    if not gets.services:
        hint = f"keyhole grant {gets.agent} SERVICE"
        session.out.warn(f"the agent {gets.agent} may use nothing yet: {hint}")
    if values:
        from keyhole.scrub import MIN_SECRET  # noqa: PLC0415  # slow to load, and most runs give no value

        session.out.warn(f"the command gets the real value in {', '.join(sorted(values))}")
        short = [name for name, value in sorted(values.items()) if len(value) < MIN_SECRET]
        if short and plan.scrub:
            session.out.warn(f"too short to be found in what the command prints: {', '.join(short)}")


def _wishes(sandbox: str, network: str, named: tuple[str, ...], *, transparent: bool) -> dict[str, Any]:
    """How the command is to be shut in, as its plan says it."""
    if network == "broker" and sandbox == "off":
        raise InvalidRequest("without a sandbox there is no network of its own", "leave --sandbox off away")
    if network == "host" and (transparent or named):
        raise InvalidRequest("the machine's network needs neither --transparent nor --allow-local")
    for text in named:
        right = 0 < int(text) < 1 << 16 if text.isdecimal() else text.startswith("/")
        if not right:
            raise InvalidRequest(f"{text!r} is neither a port nor the whole path of a socket", "--allow-local 5432")
    local = tuple(int(text) for text in named if text.isdecimal())
    sockets = tuple(Path(text) for text in named if not text.isdecimal())
    return {
        "sandbox": sandbox,
        "network": network,
        "transparent": transparent,
        "local": local,
        "sockets": sockets,
    }


def _served(gets: Granted) -> tuple[str, ...]:
    """Where the agent's services of HTTP are."""
    kinds = ("http", "https")
    return tuple(
        str(host) for data in gets.services.values() if set(kinds) & set(data["schemes"]) for host in data["hosts"]
    )


def _tell(session: Session, report: SandboxReport) -> None:
    network = "the broker alone" if report.network == "broker" else "open"
    session.out.say(f"keyhole: sandbox {report.level}, network: {network}")
    for line in report.missing:
        session.out.say(f"keyhole: not in the sandbox: {line}")


@contextmanager
def _token(session: Session, agent: str, ttl: str, program: str) -> Iterator[Mapping[str, Any]]:
    """A token that can do nothing but calls, with placeholders of its own, as long as the command runs."""
    wanted = {"scope": "proxy", "ttl": ttl, "placeholders": True, **_work(program)}
    made = session.client.write(f"agents/{agent}/token", wanted).data
    try:
        yield made
    finally:
        try:
            session.client.write("auth/token/revoke-accessor", {"accessor": made["accessor"]})
        except KeyholeError as error:
            session.out.warn(f"the command's token could not be revoked, it ends at {made['expires_at']}: {error}")


def _work(program: str) -> dict[str, str]:
    """The run context of a command: what the environment says, else a run of its own and the name of its program."""
    from keyhole.client.context import of_environment  # noqa: PLC0415  # --help needs none

    said = of_environment(os.environ) or Stated()
    name = "".join(char for char in Path(program).name if char.isprintable())[:100]
    work = {"run": f"run-{secrets.token_hex(6)}", "tool": name, **said.claims}
    return work | ({"traceparent": str(said.trace)} if said.trace is not None else {})


def _revealed(session: Session, gets: Granted, wanted: tuple[str, ...]) -> dict[str, Secret]:
    """The real values that were asked for, each read as the caller, which is recorded."""
    found: dict[str, Secret] = {}
    for text in wanted:
        variable, mark, reference = text.rpartition("=")
        path, field = parse_shown_ref(reference)
        bound = [v.name for v in gets.variables if v.secret == f"{path}#{field}"]
        names = [variable] if mark else bound
        if not names:
            raise InvalidRequest(
                f"no service says which variable the secret {path!r} stands in", f"name it: --env VARIABLE={reference}"
            )
        data = fields_of(session.client.read(revealing(path)).data)
        if not isinstance(data.get(field), str):
            raise NotFound(f"the secret {path!r} has no text in the field {field!r}", f"keyhole show {path}")
        found |= dict.fromkeys(names, Secret(data[field]))
    return found


def hidden_paths(session: Session) -> list[Path]:
    """The files and folders of the vault, which the sandbox covers; what a folder of the user's has besides stays."""
    from keyhole.config import home, load  # noqa: PLC0415  # --help needs neither
    from keyhole.seals import file_of  # noqa: PLC0415  # the same

    found = [home(), Path(session.passphrase.file)] if session.passphrase.file else [home()]
    if not session.where.remote:
        location = session.where.location
        seals = [load().seal, asyncio.run(_seal(location))]
        found += [Path(file) for seal in seals if (file := file_of(seal))]
        if location.startswith(_SQLITE):
            found += _store_paths(Path(location.removeprefix(_SQLITE)))
        if _in_database(session):
            found += [Path(os.environ.get(name) or usual) for name, usual in _OPENING.items() if usual]
    return [path.expanduser().absolute() for path in found]


def _in_database(session: Session) -> bool:
    return not session.where.remote and session.where.location.startswith(_POSTGRES)


def _store_paths(store: Path) -> list[Path]:
    """The store's own folder; its files alone where the folder is the user's as well."""
    folder = store.absolute().parent.resolve()
    shared = [Path.cwd(), Path.home(), Path("/tmp")]  # noqa: S108  # to be left alone
    if any(place.resolve() == folder or folder in place.resolve().parents for place in shared):
        return [store, *(store.with_name(store.name + end) for end in ("-wal", "-shm", "-journal"))]
    return [folder]


async def _seal(location: str) -> str:
    from keyhole.stores import open_store  # noqa: PLC0415  # as above
    from keyhole.vault.keys import read_header  # noqa: PLC0415

    store = await open_store(location)
    try:
        header = await read_header(store)
        return header.seal if header is not None else ""
    finally:
        await store.close()
