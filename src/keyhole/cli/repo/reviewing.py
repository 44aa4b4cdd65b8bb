"""``repo review``, and ``repo diff`` between two states: what changed, by names only."""

from __future__ import annotations

import contextlib

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.past import GitPast, commits_of, past_of
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, NotFound
from keyhole.repo.comparing import Difference, compare_secrets, compare_states
from keyhole.repo.history import history
from keyhole.repo.opened import Opened
from keyhole.repo.past import everybody
from keyhole.repo.reviewing import Review, look_at, review, state_of

VIOLATED = 1
_MOST = 1000  # commits


@repo.command("review", examples="keyhole repo review origin/main..HEAD\nkeyhole repo review origin/main..HEAD --json")
@click.argument("span", metavar="BASE..HEAD")
@place_options
@pass_session
def review_command(session: Session, /, *, span: str, directory: str, key_file: str) -> int:
    """Is what these commits did to the vault signed and genuine? Markdown for a pull request; needs no key.

    Exit code 1 when anything is not, such as a recipient whom no owner or admin has signed.
    """
    place = Place(session, directory, key_file)
    past = commits_of(place)
    base, head = _span(past, span)
    found, opened = _reviewed(past, base, head)
    if opened is not None and opened.opaque and (identity := place.known()) is not None:
        with contextlib.suppress(KeyholeError):  # who has no key of a member sees ids
            opened.unlock(identity)
    session.out.result(found.data, found.markdown(span, opened))
    return VIOLATED if found.problems else 0


def _span(past: GitPast, text: str) -> tuple[str, str]:
    """The commit where a range begins, where its ends parted, and the one where it ends."""
    first, dots, last = text.partition("...") if "..." in text else text.partition("..")
    head = past.resolve(last or "HEAD")
    one = past.resolve(first or "HEAD")
    base = past.common(one, head)
    if not base:
        raise InvalidRequest(
            f"{text[:80]} is no range of one history", "fetch the whole history, such as fetch-depth: 0"
        )
    if not dots and base == head:
        raise InvalidRequest("this takes a range of commits", "keyhole repo review origin/main..HEAD")
    return base, head


def _reviewed(past: GitPast, base: str, head: str) -> tuple[Review, Opened | None]:
    problems: list[str] = []
    try:
        before = state_of(past.at(base))
    except KeyholeError as error:
        before = None
        problems.append(f"the base is not genuine: {error.reason}")
    found, opened = review(before, past.at(head), past.touched(base, head))
    steps = past.commits(base, head)
    for commit, parent in steps[:_MOST]:
        if commit != head:
            said = look_at(past.at(commit), past.touched(parent, commit))
            problems += [f"commit {commit[:10]}: {each}" for each in said]
    if len(steps) > _MOST:
        problems.append(f"only the last {_MOST} of {len(steps)} commits were looked at: review it in parts")
    found.problems += problems
    found.commits = len(steps)
    return found, opened


def show_difference(session: Session, place: Place, first: str, last: str) -> None:
    """How the vault changed from one commit to another, or a secret from one version to another."""
    if "@" in first and "/" in first.partition("@")[0]:
        opened = place.open()
        found = _versions(session, place, opened, first, last)
    else:
        past = past_of(session, place)
        if past is None:
            raise NotFound("nothing of the past of this vault is kept: it has neither git nor a remote", "git init")
        before = state_of(past.at(past.resolve(first)))
        after = state_of(past.at(past.resolve(last))) if last else place.open()
        if after is None:
            raise NotFound(f"there is no vault in {last[:80]}", "keyhole repo history")
        for state in (before, after):
            if state is not None:
                place.show_names(state)
        opened, found = after, compare_states(before, after)
    session.out.result(found.data, [opened.shown(line.text) for line in found.lines] or ["the same"])


def _versions(session: Session, place: Place, opened: Opened, first: str, last: str) -> Difference:
    name, _, label = first.partition("@")
    everything = history(opened, past_of(session, place), name)
    before = everything.find(label)
    newest = everything.versions[0].label
    other, _, wanted = (last or f"{name}@{newest}").partition("@")
    if opened.where(other) != everything.name:
        raise InvalidRequest("these are versions of two secrets", f"keyhole repo diff {name}@1 {name}@2")
    after = everything.find(wanted)
    if before.described is None or after.described is None:  # pragma: no cover - find has refused it
        raise IntegrityError("a version cannot be read")
    line = compare_secrets(everything.name, before.described, after.described, everybody(opened))
    return Difference(secrets=[line] if line is not None else [])
