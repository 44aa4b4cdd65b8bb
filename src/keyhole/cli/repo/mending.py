"""What ``operator fsck`` does in a repo vault: carry on with what a killed command left, and say what is left to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyhole.cli.base import Session
from keyhole.cli.repo.place import Place
from keyhole.core.errors import Conflict, IntegrityError, KeyholeError
from keyhole.remotes.git import Git
from keyhole.repo.opened import Opened


@dataclass(slots=True)
class Report:
    """What was found in a repo vault.

    Attributes:
        did: what was put right.
        wrong: what has to be put right by a person, each with the next step.
    """

    did: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def mend(session: Session, path: str, *, discard: bool) -> Report:
    """Put right what can be, and look at everything that is signed.

    Args:
        session: of the command.
        path: inside the repository.
        discard: put aside what cannot be carried on with.

    Raises:
        NotFound: there is no vault.
        Conflict: another command, or another git, works there.
    """
    place, report = Place(session, path), Report()
    if discard and _is_stuck(place):
        report.did += [f"put aside {name}" for name in place.tree.discard()]
    try:
        with place.tree.lock():
            _carry_on(place, report, discard=discard)
            if place.git is not None:
                _look_at_git(place, place.git, report)
            opened = _look(place, report)
    except IntegrityError as error:
        report.wrong.append(f"{error.reason}: {error.hint}")
        return report
    if opened is not None:
        for name in opened.names():
            try:
                opened.ciphertext(name)
            except KeyholeError as error:
                report.wrong.append(f"{error.reason}: {error.hint}")
    return report


def _is_stuck(place: Place) -> bool:
    try:
        place.tree.left()
    except IntegrityError:
        return True
    return False


def _carry_on(place: Place, report: Report, *, discard: bool) -> None:
    if place.git is not None:
        report.did += [f"removed {lock}, which a killed git had left" for lock in place.git.clear_locks()]
    try:
        report.did += [f"finished what a command had begun: {message}" for message in place.finish()]
    except (Conflict, IntegrityError) as error:
        if not discard or place.git is None or not place.git.is_moving(place.tree.root):
            raise
        place.git.stop_moving(place.tree.root)
        report.did.append(f"gave up what a command had begun ({error.reason}); see git status")


def _look_at_git(place: Place, git: Git, report: Report) -> None:
    report.wrong += [f"{each}: fetch it again, or clone the remote" for each in git.broken_objects()]
    for name in git.match_index(place.tree.root):
        report.did.append(f"noted {name} in the index of git, as it is committed")


def _look(place: Place, report: Report) -> Opened | None:
    try:
        return place.open()
    except KeyholeError as error:
        report.wrong.append(f"{error.reason}: {error.hint}")
        return None
