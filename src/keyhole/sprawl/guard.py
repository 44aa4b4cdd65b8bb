"""The guard before a commit: what is staged, and was not there before, must have no credential in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyhole.sprawl.finding import ACCEPTED, LIMITS, Accepted, Finding, Limits, look
from keyhole.sprawl.repository import Repository


@dataclass
class Guarded:
    """What the guard saw.

    Attributes:
        findings: new ones, which nobody accepted.
        files: how many were looked at.
        accepted: findings that the allow list has.
        cut: files of which only the beginning was looked at.
    """

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    accepted: int = 0
    cut: list[str] = field(default_factory=list)


def guard(repository: Repository, limits: Limits = LIMITS) -> Guarded:
    """Look at what is staged.

    What the files had before, or files that are removed in the same commit, does not count again: it is in the history
    already, and a file that is renamed would never come through.
    """
    staged, replaced = repository.staged()
    seen = Guarded(files=len(staged))
    for each, (data, size) in zip(staged, repository.blobs([each.blob for each in staged], limits.file), strict=True):
        if size > limits.file:
            seen.cut.append(each.path)
        seen.findings += look(each.path, data, limits)
    if seen.findings:
        known = {
            finding.fingerprint
            for data, _ in repository.blobs(list(dict.fromkeys(replaced)), limits.file)
            for finding in look("", data, limits)
        }
        seen.findings = [finding for finding in seen.findings if finding.fingerprint not in known]
    if seen.findings:
        accepted = Accepted(repository.file(ACCEPTED))
        fresh = [finding for finding in seen.findings if finding not in accepted]
        seen.accepted = len(seen.findings) - len(fresh)
        seen.findings = fresh
    return seen
