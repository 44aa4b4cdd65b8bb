"""The command ``agent-vault``: the verbs, flags, messages and exit codes of the tool of that name (version 0.1.0).

What it writes is what ``keyhole repo`` writes. A value in the command line is taken, because scripts give it there, and
warned of: others can see it, and the shell remembers it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from keyhole import __version__
from keyhole.cli.base import Session, interruptions
from keyhole.cli.consent import LONGEST
from keyhole.cli.repo.guarding import guard_new
from keyhole.cli.repo.place import Place
from keyhole.cli.repo.vaults import make_vault
from keyhole.cli.shells import SHELLS
from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, NotFound
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.repo import changes, keys
from keyhole.repo.checking import Findings, check
from keyhole.repo.documents import instant
from keyhole.repo.hidden import Kind
from keyhole.repo.members import Role
from keyhole.repo.names import group_of, parse_secret
from keyhole.repo.opened import Opened
from keyhole.repo.reads import release
from keyhole.repo.sealing import Actor
from keyhole.repo.tree import Change

_PROG = "agent-vault"


@click.group(_PROG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=_PROG)
def program_group() -> None:
    """Zero-trust credential manager for AI agents."""


def _session() -> Session:
    """Of this run; it knows the names of a vault that hides them."""
    found: Session = click.get_current_context().find_root().obj
    return found


def _say(text: str = "") -> None:
    click.echo(_session().out.shown(text), err=True)


def _print(text: str) -> None:
    click.echo(_session().out.shown(text))


def _place(key: str = "") -> Place:
    try:
        return Place(_session(), ".", key)
    except NotFound:
        raise NotFound("vault not found \u2014 run `agent-vault init` first") from None


def _pretty(data: Any) -> None:
    _print(json.dumps(data, indent=2, ensure_ascii=False))


@program_group.command("init")
@click.argument("directory", default=".")
def init(directory: str) -> None:
    """Initialize a new vault in the current (or specified) directory."""
    made = make_vault(Path(directory).resolve(), "owner", git=True)
    _say(f"Vault initialized in {made.vault}")
    _say(guard_new(made.vault.parent))
    _say(f"Your owner key is in {made.key_file}; back it up, nothing can be recovered without it.")


@program_group.command("add-agent")
@click.argument("name")
def add_agent(name: str) -> None:
    """Add a new agent to the vault."""
    place = _place()
    path = keys.free(keys.agent_file(os.environ, name))  # an agent of that name in another vault keeps its key
    identity = age.generate()
    keys.write(path, identity)
    with place.undoing(path.unlink):  # nobody knows this key
        place.change(
            lambda opened, actor: changes.add(
                opened, actor, name, identity.recipient, sign=identity.signing.public, escrow=identity
            )
        )
    _say(f"Agent '{name}' created.")
    _say(f"Private key saved to: {path}")
    _say("The agent has no group access yet \u2014 use `agent-vault grant` to add access.")


@program_group.command("remove-agent")
@click.argument("name")
def remove_agent(name: str) -> None:
    """Remove an agent from the vault."""
    groups: list[str] = []

    def take_out(opened: Opened, actor: Actor) -> Change:
        member = opened.require_members().members.get(opened.hidden(Kind.MEMBER, name))
        groups.extend(member.groups if member is not None else ())
        return changes.take_out(opened, actor, name)

    change = _place().change(take_out)
    _say(f"Agent '{name}' removed.")
    if groups:
        _say(f"\nWARNING: '{name}' previously had access to secrets in these groups:")
        for group in groups:
            _say(f"  - {group}")
        _say(f"Those secrets have been re-encrypted without '{name}'.")
    elif change.due:  # of ``set --agents``, which gives no group
        _say(f"\nWARNING: '{name}' previously had access to these secrets.")
    if groups or change.due:
        _rotate(change, name)


@program_group.command("list-agents")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_agents(*, as_json: bool) -> None:
    """List all agents in the vault."""
    opened = _place().open()
    if opened.members is None:
        found = dict(opened.manifest.agents)
    else:
        found = {m.name: m.groups for m in opened.members.members.values() if m.role is not Role.OWNER}
    if as_json:
        _pretty([{"name": name, "groups": list(groups)} for name, groups in found.items()])
    elif not found:
        _print("No agents configured.")
    else:
        for name, groups in found.items():
            _print(f"{name}  [{', '.join(groups)}]" if groups else f"{name}  (no groups)")


@program_group.command("grant")
@click.argument("agent")
@click.argument("group")
def grant(agent: str, group: str) -> None:
    """Grant an agent access to a group."""
    change = _place().change(lambda opened, actor: changes.grant(opened, actor, agent, group))
    _say(f"Granted '{agent}' access to group '{group}'.")
    _say(f"Re-encrypted {_sealed(change)} secret(s).")


@program_group.command("revoke")
@click.argument("agent")
@click.argument("group")
def revoke(agent: str, group: str) -> None:
    """Revoke an agent's access to a group."""
    change = _place().change(lambda opened, actor: changes.revoke(opened, actor, agent, group))
    _say(f"Revoked '{agent}' access to group '{group}'.")
    _say(f"Re-encrypted {_sealed(change)} secret(s).")
    _say(f"\nWARNING: '{agent}' previously had access to these secrets.")
    _rotate(change, agent)


@program_group.command("set")
@click.argument("path")
@click.argument("value", required=False)
@click.option("--from-file", metavar="FILE", default=None, help="Read the value from a file.")
@click.option("--group", metavar="GROUP", default=None, help="To which it belongs; else the first part of PATH.")
@click.option("--expires", metavar="TIME", default=None, help="Not given out after this time, ISO 8601.")
@click.option("--agents", metavar="A,B", default="", help="Agents who can open it besides those of the group.")
def set_secret(
    path: str, value: str | None, from_file: str | None, group: str | None, expires: str | None, agents: str
) -> None:
    """Set (create or update) a secret."""
    if value is not None and from_file is not None:
        raise click.ClickException("provide either a value or --from-file, not both")
    if value is None and from_file is None:
        raise click.ClickException("provide a value or --from-file")
    named = tuple(filter(None, agents.split(",")))
    name, until = parse_secret(path), _time(expires) if expires else None
    secret = Secret(value) if value is not None else Secret(_text_of(str(from_file)))
    place = _place()
    groups = (group,) if group else (group_of(name),)
    change = place.change(
        lambda opened, actor: changes.store(opened, actor, name, secret, groups=groups, also=named, expires=until)
    )
    besides = f" (also encrypted for: {', '.join(named)})" if named else ""
    _say(f"Secret '{path}' set in group '{groups[0]}'{besides}.")
    if change.due:
        _say(f"WARNING: '{path}' has the value that it had, and is still to be rotated at the source.")
    if value is not None:
        _say("note: a value in the command line can be seen by others and is kept by the shell; prefer --from-file")


@program_group.command("get")
@click.argument("path")
@click.option("--key", metavar="FILE", default="", help="Your key; else AGENT_VAULT_KEY, or the owner's.")
def get(path: str, key: str) -> None:
    """Get (decrypt) a secret."""
    place = _place(key)
    place.refresh()
    value = release(place.open(), place.identity(), path, how="agent-vault get", environ=os.environ)
    sys.stdout.buffer.write(value.reveal())
    sys.stdout.buffer.flush()


@program_group.command("list")
@click.option("--group", metavar="GROUP", default=None, help="Only those of this group.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_secrets(*, group: str | None, as_json: bool) -> None:
    """List all secrets in the vault."""
    opened = _place().open()
    group = group and opened.hidden(Kind.GROUP, group)
    found = [meta for meta in map(opened.meta, opened.names()) if meta is not None and group in {None, meta.group}]
    if as_json:
        _pretty(
            [
                {
                    "name": meta.name,
                    "group": meta.group,
                    "authorized_agents": list(meta.agents),
                    "created": instant(meta.created),
                    "rotated": instant(meta.rotated),
                    "expires": None if meta.expires is None else instant(meta.expires),
                }
                for meta in found
            ]
        )
        return
    if not found:
        _print("No secrets found.")
    for meta in found:
        until = f"  expires={meta.expires:%Y-%m-%d}" if meta.expires is not None else ""
        _print(
            f"{meta.name:<30} group={meta.group:<15} agents=[{', '.join(meta.agents)}]"
            f"  rotated={meta.rotated:%Y-%m-%d}{until}"
        )


@program_group.command("check")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def check_vault(context: click.Context, *, as_json: bool) -> None:
    """Audit the vault for issues."""
    try:
        found = check(_place().open(), datetime.now(UTC))
    except (IntegrityError, InvalidRequest) as error:  # a vault that cannot be read is what a check is to find
        found = Findings(errors=[_told(error)])
    if not keys.owner_file(os.environ).exists():
        found.warnings.append("owner key not found on this machine")
    if as_json:
        _pretty({"errors": found.errors, "warnings": found.warnings})
    elif not (found.errors or found.warnings):
        _print("No issues found. Vault is healthy.")
    else:
        for each in found.errors:
            _print(f"ERROR: {each}")
        for each in found.warnings:
            _print(f"WARNING: {each}")
        _print(f"\n{len(found.errors)} error(s), {len(found.warnings)} warning(s).")
    if found.errors:
        context.exit(1)


@program_group.command("recover-agent")
@click.argument("name")
def recover_agent(name: str) -> None:
    """Recover an agent (generate new keypair, re-encrypt secrets)."""
    place, path = _place(), keys.agent_file(os.environ, name)
    identity = age.generate()
    fresh = keys.free(path)
    keys.write(fresh, identity)
    with place.undoing(fresh.unlink):  # nobody knows this key
        change = place.change(lambda opened, actor: changes.replace_key(opened, actor, name, identity))
    if fresh != path:  # scripts look for the key under the agent's name; the old one opens the old commits only
        path.rename(keys.free(path.with_name(f"{name}.old.key")))
        fresh.rename(path)
    _say(f"Agent '{name}' recovered with a new key.")
    _say(f"Private key saved to: {path}")
    _say(f"Re-encrypted {_sealed(change)} secret(s).")


@program_group.command("restore-agent")
@click.argument("name")
@click.option("--to", "to_path", metavar="FILE", required=True, help="Where the key is written; it must not be there.")
def restore_agent(name: str, to_path: str) -> None:
    """Restore an agent's original private key from escrow."""
    place = _place()
    keys.write(Path(to_path), place.escrowed(name))
    _say(f"Agent '{name}' key restored to: {to_path}")


@program_group.command("completions")
@click.argument("shell", type=click.Choice(SHELLS))
def completions(shell: str) -> None:
    """Print shell completions."""
    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(program_group, {}, _PROG, "_AGENT_VAULT_COMPLETE").source())


def _sealed(change: Change) -> int:
    return sum(path.endswith(".enc") and data is not None for path, data in change.files.items())


def _rotate(change: Change, name: str) -> None:
    for secret in change.due:
        _say(f"  - {secret}")
    _say(f"You should rotate them at the source, as '{name}' previously held decrypted copies.")


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.ClickException("invalid --expires date (use ISO 8601)") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _text_of(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(LONGEST + 1)  # one that has no end is refused for its length
        data.decode()
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} is not text in UTF-8") from None
    return data


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 for every failure, 2 for a wrong command line."""
    run: Callable[..., Any] = program_group.main
    session = Session()
    try:
        return int(run(arguments, prog_name=_PROG, standalone_mode=False, obj=session) or 0)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        _fail(session, error.format_message())
    except KeyholeError as error:
        _fail(session, _told(error))
    except interruptions():
        _fail(session, "stopped")
    except OSError as error:
        _fail(session, f"{error.filename or 'the output'}: {error.strerror}")
    except Exception as error:  # noqa: BLE001  # its text could quote a value; its type cannot
        _fail(session, f"internal error: {type(error).__name__}")
    return 1


def _told(error: KeyholeError) -> str:
    return f"{error.reason}{f' ({error.hint})' if error.hint else ''}"


def _fail(session: Session, reason: str) -> None:
    click.echo(session.out.shown(f"Error: {reason}"), err=True)


def program() -> None:
    """The program ``agent-vault``."""
    sys.exit(main())
