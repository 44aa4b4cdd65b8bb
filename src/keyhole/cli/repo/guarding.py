"""``repo guard``: no commit with a credential in it."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from pathlib import Path

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.sprawl.finding import ACCEPTED, Finding
from keyhole.sprawl.guard import guard
from keyhole.sprawl.hooks import Hooks
from keyhole.sprawl.repository import Repository

FOUND = 1


@group(
    "guard",
    examples="""
    keyhole repo guard install
    keyhole repo guard run                        # looks at what is staged now
    keyhole repo guard allow 1f0e4d7c9a2b3c4d --why "a key of the test data"
    """,
)
def guard_group() -> None:
    """Look at what is staged before each commit, and refuse private keys and credentials.

    It looks at the contents that are staged, not at the files as they are now, and shows no value.
    """


repo.add_command(guard_group)


def program() -> str:
    """Where this program is, for a hook."""
    for name in (sys.argv[0], shutil.which("keyhole") or "", str(Path(sys.executable).with_name("keyhole"))):
        path = Path(name)
        if path.name == "keyhole" and path.is_file() and os.access(path, os.X_OK):
            return str(path.absolute())
    return ""


def where(hooks: Hooks) -> str:
    """Whose hooks they are, for a person; empty for this clone's own."""
    if hooks.is_own:
        return ""
    if hooks.is_tracked:
        return "core.hooksPath names a folder of the work tree: commit it, and every clone that uses it is guarded"
    return "core.hooksPath names a folder outside: every repository that uses it is guarded"


@guard_group.command("install", examples="keyhole repo guard install\nkeyhole repo guard install ~/code/shop --json")
@click.argument("directory", default=".")
@pass_session
def install(session: Session, /, *, directory: str) -> None:
    """Put the guard before all other hooks of a repository. Those are kept."""
    hooks = Hooks(Repository(Path(directory)))
    changed = [str(path) for path in hooks.install(program())]
    session.out.done(
        {"hooks": str(hooks.folder), "changed": changed},
        "\n".join(filter(None, [f"guarded {hooks.folder}" if changed else "it was guarded already", where(hooks)])),
    )


@guard_group.command("uninstall", examples="keyhole repo guard uninstall")
@click.argument("directory", default=".")
@pass_session
def uninstall(session: Session, /, *, directory: str) -> None:
    """Take the guard out again, and leave the other hooks as they were."""
    changed = [str(path) for path in Hooks(Repository(Path(directory))).uninstall()]
    session.out.done({"changed": changed}, "took the guard out" if changed else "there was no guard")


@guard_group.command("status", examples="keyhole repo guard status\nkeyhole repo guard status --json")
@click.argument("directory", default=".")
@pass_session
def status(session: Session, /, *, directory: str) -> int:
    """Is the guard there? Exit code 1 when it is not."""
    hooks = Hooks(Repository(Path(directory)))
    state = hooks.state()
    missing = [hook.path.name for hook in state if not hook.guarded]
    data = {"hooks": str(hooks.folder), "guarded": not missing, "missing": missing, "own": hooks.is_own}
    lines = [f"{hook.path}: {'guarded' if hook.guarded else 'not guarded'}" for hook in state]
    session.out.result(data, [*lines, *filter(None, [where(hooks)])])
    return FOUND if missing else 0


@guard_group.command("run", examples="keyhole repo guard run\nkeyhole repo guard run --json")
@click.argument("directory", default=".")
@pass_session
def run(session: Session, /, *, directory: str) -> int:
    """Look at what is staged. Exit code 1 when there is a credential in it."""
    seen = guard(Repository(Path(directory)))
    for path in seen.cut:
        session.out.warn(f"{path} is longer than what is looked at; the rest of it was not")
    found = [as_data(each) for each in seen.findings]
    data = {"findings": found, "files": seen.files, "accepted": seen.accepted, "cut": seen.cut}
    session.out.result(data, [told(each) for each in seen.findings])
    if seen.findings:
        session.out.say(
            "nothing was committed: take it out and store it (keyhole set NAME), or accept what is no secret:\n"
            f"  keyhole repo guard allow {seen.findings[0].fingerprint} --why TEXT     or keyhole:allow in its line"
        )
    return FOUND if seen.findings else 0


def as_data(finding: Finding) -> dict[str, object]:
    """A finding for ``--json``."""
    return {
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "rule": finding.rule,
        "title": finding.title,
        "fingerprint": finding.fingerprint,
    }


def told(finding: Finding) -> str:
    """A finding for a person."""
    return f"{finding.where}: {finding.title} [{finding.rule}] {finding.fingerprint}"


@guard_group.command("allow", examples='keyhole repo guard allow 1f0e4d7c9a2b3c4d --why "a key of the test data"')
@click.argument("fingerprints", nargs=-1, required=True)
@click.option("--why", required=True, metavar="TEXT", help="Why it is no secret; stands beside it.")
@pass_session
def allow(session: Session, /, *, fingerprints: tuple[str, ...], why: str) -> None:
    """Accept findings for everybody: their fingerprints go into .keyhole-allow, which you stage and commit."""
    if not all(len(each) == 16 and set(each) <= set("0123456789abcdef") for each in fingerprints):
        raise InvalidRequest("a fingerprint is 16 hexadecimal digits", "keyhole repo guard run prints them")
    if "\n" in why or not why.strip():
        raise InvalidRequest("the reason is one line of text", "say why it is no secret")
    path = Repository(Path()).top / ACCEPTED
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise InvalidRequest(f"{path} is no plain file", "somebody put a link there: remove it")
    before = path.read_bytes() if path.exists() else b"# Findings that are no secrets.\n"
    if not before.endswith(b"\n"):
        before += b"\n"
    after = before + "".join(f"{each}  # {why.strip()}\n" for each in fingerprints).encode()
    with (path.with_name(f"{ACCEPTED}.{secrets.token_hex(8)}")).open("xb") as fresh:
        fresh.write(after)
    Path(fresh.name).replace(path)
    session.out.done({"file": str(path)}, f"accepted in {path}; git add {ACCEPTED}")


def guard_new(root: Path) -> str:
    """Guard the repository of a new vault, where its hooks are its own; what was done or is to be done, in a line."""
    try:
        hooks = Hooks(Repository(root))
        if not hooks.is_own:
            return "no hook was changed, because core.hooksPath is set: keyhole repo guard install"
        hooks.install(program())
    except (KeyholeError, OSError) as error:
        return f"no hook was changed: {error}"
    return "commits are guarded: keyhole repo guard status"


def is_guarded(root: Path) -> bool | None:
    """Whether the repository around a folder has the guard; ``None`` where that cannot be said, as in no repository."""
    try:
        return all(hook.guarded for hook in Hooks(Repository(root)).state())
    except (KeyholeError, OSError):
        return None
