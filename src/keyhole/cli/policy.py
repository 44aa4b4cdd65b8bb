"""``policy``: rules on API paths."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.names import policies
from keyhole.cli.policy_replay import capture, replay
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_policy_name

if TYPE_CHECKING:
    from keyhole.core.identity import IdentityView

OPERATIONS = ("create", "read", "update", "patch", "delete", "list", "use")
NOT_ALLOWED = 1


@group("policy", examples="keyhole policy write ops < ops.hcl\nkeyhole policy test ops read secret/data/db/prod")
def policy() -> None:
    """Rules on API paths, in the language of Vault's policies, with the capability use besides."""


@policy.command("list", examples="keyhole policy list")
@pass_session
def list_policies(session: Session, /) -> None:
    """Names of policies."""
    names = session.client.list("sys/policies/acl").data["keys"]
    session.out.result(names, names)


@policy.command("show", examples="keyhole policy show agent/coder")
@click.argument("name", shell_complete=policies)
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """The text of a policy."""
    data = session.client.read(f"sys/policies/acl/{parse_policy_name(name)}").data
    session.out.result({"name": data["name"], "policy": data["policy"]}, str(data["policy"]).rstrip("\n"))


@policy.command("write", examples="keyhole policy write ops ops.hcl\nkeyhole policy write ops < ops.hcl")
@click.argument("name", shell_complete=policies)
@click.argument("file", required=False)
@pass_session
def write(session: Session, /, *, name: str, file: str | None) -> None:
    """Make or replace a policy, from a file or stdin."""
    name = parse_policy_name(name)
    try:
        text = Path(file).read_text("utf-8") if file and file != "-" else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InvalidRequest(f"{file or 'stdin'} cannot be read: {why}", f"keyhole policy write {name} FILE") from None
    session.client.write(f"sys/policies/acl/{name}", {"policy": text})
    session.out.done({"name": name}, f"policy {name} is written; it holds from the next request on")


@policy.command(
    "test",
    examples="""
    keyhole policy test coder use services/stripe
    keyhole policy test ops read secret/data/db/prod --entity bob
    keyhole policy test ops update auth/token/create --field policies=web --wrap-ttl 5m
    """,
)
@click.argument("who", metavar="AGENT|POLICY")
@click.argument("operation", type=click.Choice(OPERATIONS))
@click.argument("path")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME=TEXT", help="A field of the request; may be given again."
)
@click.option("--wrap-ttl", metavar="DURATION", help="For how long the answer is to be wrapped.")
@click.option("--entity", metavar="NAME", help="Fills in templates; without it rules that have one are left out.")
@click.option("--sudo", is_flag=True, help="The path needs sudo besides.")
@pass_session
def test(
    session: Session,
    /,
    *,
    who: str,
    operation: str,
    path: str,
    fields: tuple[str, ...],
    wrap_ttl: str | None,
    entity: str | None,
    sudo: bool,
) -> int:
    """What an agent's policies, or one policy, say of an operation on an API path.

    Exit code 0 if it is allowed, 1 if not.
    """
    from keyhole.core.identity import NOBODY  # noqa: PLC0415  # the other verbs judge nothing
    from keyhole.core.lease import parse_duration  # noqa: PLC0415  # the same
    from keyhole.core.policy import Acl, PathRule  # noqa: PLC0415  # the same
    from keyhole.vault.hcl import parse_policy  # noqa: PLC0415  # the same

    names = _policies(session, who)
    rules = []
    for name in names:
        with contextlib.suppress(NotFound):
            text = session.client.read(f"sys/policies/acl/{name}").data["policy"]
            rules += [PathRule.from_data(rule) for rule in parse_policy(text)] if name != "root" else []
    view = _entity(session, entity) if entity else NOBODY
    filled = [rule for rule in (each.filled(view) for each in rules) if rule is not None]
    given = dict(_field(text) for text in fields)
    decision = Acl(filled, root="root" in names).decide(
        operation, path.strip("/"), parameters=given, sudo=sudo, wrap_ttl=parse_duration(wrap_ttl or 0, name="wrap-ttl")
    )
    data = {
        "policies": names,
        "operation": operation,
        "path": path.strip("/"),
        "allowed": bool(decision),
        "rule": decision.rule,
        "reason": decision.reason,
    }
    verdict = "allowed" if decision else "not allowed"
    why = f"by the rule {decision.rule}" if decision.rule else decision.reason
    session.out.result(data, f"{verdict}: {operation} {data['path']}, {why} ({', '.join(names)})")
    return 0 if decision else NOT_ALLOWED


policy.add_command(capture)
policy.command(
    "replay",
    examples="""
    keyhole policy replay --policy agent/coder=coder.hcl
    keyhole policy replay --service stripe=stripe.json --without-service old --agent coder --json
    """,
)(replay)


def _field(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not (name and mark):
        raise InvalidRequest("a field is written NAME=TEXT", "keyhole policy test ops update PATH --field ttl=1h")
    return name, value


def _entity(session: Session, name: str) -> IdentityView:
    """What templates may name of an entity."""
    from keyhole.core.identity import AliasView, GroupView, IdentityView  # noqa: PLC0415  # the other verbs need none

    data = session.client.read(f"identity/entity/name/{name}").data
    groups = [session.client.read(f"identity/group/id/{group}").data for group in data["group_ids"] or ()]
    return IdentityView(
        id=data["id"],
        name=data["name"],
        metadata=data["metadata"] or {},
        aliases={
            alias["mount_accessor"]: AliasView(
                id=alias["id"],
                name=alias["name"],
                metadata=alias["metadata"] or {},
                custom_metadata=alias["custom_metadata"] or {},
            )
            for alias in data["aliases"] or ()
        },
        groups=tuple(GroupView(id=g["id"], name=g["name"], metadata=g["metadata"] or {}) for g in groups),
    )


def _policies(session: Session, who: str) -> list[str]:
    """The policies of the agent of that name, else the policy of that name. Raises ``NotFound``."""
    agent = who.removeprefix("agent/")
    if "/" not in agent:
        with contextlib.suppress(NotFound):
            return [str(name) for name in session.client.read(f"agents/{agent}").data["policies"]]
    name = parse_policy_name(who)
    try:
        session.client.read(f"sys/policies/acl/{name}")
    except NotFound:
        raise NotFound(f"there is no agent and no policy {who!r}", "keyhole agent list; keyhole policy list") from None
    return [name]


@policy.command("rm", examples="keyhole policy rm ops")
@click.argument("name", shell_complete=policies)
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove a policy. Who had it loses what it gave, from the next request on."""
    name = parse_policy_name(name)
    session.client.read(f"sys/policies/acl/{name}")
    session.client.delete(f"sys/policies/acl/{name}")
    session.out.done({"name": name, "removed": True}, f"removed the policy {name}")
