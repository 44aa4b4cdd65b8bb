"""``repo coverage``, ``compare`` and ``project``: projects with environments, by the names of their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import InvalidRequest
from keyhole.repo.environments import compare, coverage, group_name
from keyhole.repo.names import parse_part, parse_secret
from keyhole.repo.tree import LOCAL

F = TypeVar("F", bound=Callable[..., Any])
_PROJECT = "project"


def environment_options(function: F) -> F:
    """``--env`` and ``--project``."""
    for option in (
        click.option("--project", default="", metavar="PROJECT", help="With --env; else that of keyhole repo project."),
        click.option("--env", "environment", default="", metavar="ENV", help="NAME is that of a key in PROJECT.ENV."),
    ):
        function = option(function)
    return function


def secret_of(place: Place, name: str, environment: str, project: str) -> str:
    """The name of a secret, as it was said with ``--env`` and ``--project``. Raises ``InvalidRequest``."""
    if not environment:
        if project:
            raise InvalidRequest("--project goes with --env", "--env ENV")
        return parse_secret(name)
    if "/" in name:
        raise InvalidRequest(f"{name[:80]!r} names a group already", "with --env, NAME is the last part alone")
    project = project or _project_of(place)
    if not project:
        raise InvalidRequest("no project was said", "--project PROJECT, or once: keyhole repo project PROJECT")
    return f"{group_name(project, environment)}/{parse_part(name)}"


def _project_of(place: Place) -> str:
    return (place.tree.read(f"{LOCAL}/{_PROJECT}") or b"").decode(errors="replace").strip()


def _keep(place: Place, project: str) -> None:
    with place.tree.lock():  # it makes the folder
        local = place.tree.vault / LOCAL
        fresh = local / f"{_PROJECT}.new"
        fresh.unlink(missing_ok=True)
        fresh.write_text(project)
        fresh.rename(local / _PROJECT)


@repo.command("coverage", examples="keyhole repo coverage\nkeyhole repo coverage shop --json")
@click.argument("project", required=False, default="")
@place_options
@pass_session
def coverage_command(session: Session, /, *, project: str, directory: str, key_file: str) -> None:
    """Which key is there in which environment. A project has the groups PROJECT.ENVIRONMENT. Opens nothing."""
    found = coverage(Place(session, directory, key_file).open(), project)
    data = [
        {
            "project": each.project,
            "environments": each.environments,
            "keys": {key: {name: name in has for name in each.environments} for key, has in each.keys.items()},
            "missing": each.missing,
        }
        for each in found
    ]
    if session.out.json or not found:
        session.out.table(data, [], [], empty="no projects yet: a group PROJECT.ENVIRONMENT makes one")
    for each in found if not session.out.json else ():
        rows = [
            [key, *("yes" if name in has else "-" for name in each.environments)]
            for key, has in sorted(each.keys.items())
        ]
        session.out.table(data, [each.project, *each.environments], rows, empty=f"{each.project} has no secrets yet")


@repo.command("compare", examples="keyhole repo compare shop staging production")
@click.argument("project")
@click.argument("from_", metavar="FROM")
@click.argument("to")
@place_options
@pass_session
def compare_command(session: Session, /, *, project: str, from_: str, to: str, directory: str, key_file: str) -> None:
    """Which keys two environments of a project have, by names only. Opens nothing."""
    found = compare(Place(session, directory, key_file).open(), project, from_, to)
    data = {
        "project": project,
        "from": from_,
        "to": to,
        "in_from_only": list(found.only_from),
        "in_to_only": list(found.only_to),
        "in_both": list(found.both),
    }
    lines = [f"only {from_}: {key}" for key in found.only_from] + [f"only {to}: {key}" for key in found.only_to]
    session.out.result(data, [*lines, *(f"both: {key}" for key in found.both)])


@repo.command("project", examples="keyhole repo project shop\nkeyhole repo get stripe-key --env staging")
@click.argument("project", required=False, default="")
@place_options
@pass_session
def project_command(session: Session, /, *, project: str, directory: str, key_file: str) -> None:
    """The project that --env means in this clone. It is kept here alone, and in no commit."""
    place = Place(session, directory, key_file)
    if project:
        _keep(place, parse_part(project, "project"))
    found = _project_of(place)
    session.out.result({"project": found or None}, [found or "none: keyhole repo project PROJECT"])
