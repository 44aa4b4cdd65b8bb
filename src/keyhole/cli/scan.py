"""``scan``: credentials that lie about, and the way into the vault."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from keyhole import __version__
from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.import_sources import usual_places
from keyhole.cli.names import agents
from keyhole.cli.scan_fix import move_in
from keyhole.cli.scan_known import Known, known_values
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.importers import Origin, importer_for, load
from keyhole.sprawl.finding import ACCEPTED, Accepted, Finding, look_at
from keyhole.sprawl.history import commit_of, history
from keyhole.sprawl.repository import Repository
from keyhole.sprawl.sarif import sarif
from keyhole.sprawl.walk import Content, Passed, walk

FOUND = 1
_HISTORIES = (
    *(".bash_history", ".zsh_history", ".sh_history", ".ksh_history", ".local/share/fish/fish_history"),
    *(".python_history", ".node_repl_history", ".psql_history", ".mysql_history", ".sqlite_history", ".lesshst"),
)


@dataclass
class Scan:
    """One scan.

    Attributes:
        known: values of the vault that are looked for; none unless that was asked for.
        accepted: findings that do not count.
        passed: what was not looked at.
        findings: what was found.
        names: fingerprint to the name of the secret that it is.
        files: those of the findings that are files by themselves.
    """

    known: Known
    accepted: Accepted
    passed: Passed = field(default_factory=Passed)
    findings: list[Finding] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    files: dict[Path, list[Finding]] = field(default_factory=dict)

    def look(self, content: Content) -> list[Finding]:
        """Look at one content; what is new in it."""
        fresh = list[Finding]()
        for finding, value in [*look_at(content.label, content.data), *self.known.find(content)]:
            name = self.known.name_of(value)
            if name:
                self.names[finding.fingerprint] = name
            fresh.append(finding)
        fresh += _imported(content, fresh)
        fresh = [finding for finding in _apart(fresh) if finding not in self.accepted]
        self.findings += fresh
        if fresh and content.path is not None:
            self.files[content.path] = fresh
        return fresh

    def look_back(self, repository: Repository) -> None:
        """Look at all that was committed."""
        for blob, path, data in history(repository, self.passed.notes):
            if self.look(Content(f"{path}@{blob[:12]}", data)):
                self.passed.notes.append(f"{path}@{blob[:12]} is in the history since {commit_of(repository, blob)}")


def _imported(content: Content, there: list[Finding]) -> Iterator[Finding]:
    """What the importer of such a file takes for a credential besides, by where it stands in it."""
    kind = importer_for(content.label)
    if not kind:
        return
    try:
        report = load(kind).parse(content.data, Origin(content.label))
    except KeyholeError:
        return
    for found in report.found:
        spot = found.spots[0] if found.spots else None
        if found.doubt or spot is None or any(each.start < spot.end and spot.start < each.end for each in there):
            continue
        line = content.data.count(b"\n", 0, spot.start) + 1
        column = spot.start - content.data.rfind(b"\n", 0, spot.start)
        told = Known.fingerprint(content.data[spot.start : spot.end])
        title = f"credential in a file of {load(kind).TITLE}"
        yield Finding(content.label, line, column, f"stored-{kind}", title, told, "", spot.start, spot.end)


def _apart(findings: Iterable[Finding]) -> list[Finding]:
    """In order of the text, the first of those that overlap."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda each: (each.start, each.rule == "vault-secret")):
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def _usual() -> Iterator[Path]:
    """Where credentials lie in a home: histories of shells, and files that import knows."""
    for name in _HISTORIES:
        path = Path.home() / name
        if path.is_file():
            yield path
    yield from dict.fromkeys(path for _, path in usual_places())


def _accepted(start: Path) -> Accepted:
    folder = start if start.is_dir() else start.parent
    for each in (folder, *folder.absolute().parents):
        if (each / ACCEPTED).is_file():
            return Accepted((each / ACCEPTED).read_bytes())
        if (each / ".git").exists():
            break
    return Accepted()


@command(
    "scan",
    examples="""
    keyhole scan                                 # this folder
    keyhole scan --history --sarif > findings.sarif
    docker save shop | gzip > shop.tgz && keyhole scan shop.tgz
    keyhole scan --usual                         # histories of shells, configurations in your home
    keyhole scan .env src --fix                  # into the vault, and placeholders in their place
    keyhole scan --compare                       # which secret of the vault is it?
    """,
)
@click.argument("paths", nargs=-1, metavar="PATH…")
@click.option("--history", "back", is_flag=True, help="All that was ever committed in the repository, too.")
@click.option("--usual", is_flag=True, help="The usual places of your home, too.")
@click.option("--compare", is_flag=True, help="Compare with the secrets that you may read; each read is recorded.")
@click.option("--fix", is_flag=True, help="Move what is found into the vault, and leave placeholders.")
@click.option("--agent", default="", metavar="AGENT", shell_complete=agents, help="With --fix: who may use it.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0.")
@pass_session
def scan_command(
    session: Session,
    /,
    *,
    paths: tuple[str, ...],
    back: bool,
    usual: bool,
    compare: bool,
    fix: bool,
    agent: str,
    yes: bool,
    as_sarif: bool,
) -> int:
    """Look for credentials in files, archives, images of containers and history. Exit code 1 when there are any.

    Shows where something is and of what kind, and never a value. A comment keyhole:allow in the line, or a fingerprint
    in .keyhole-allow, says that something is no secret.
    """
    starts = [Path(each) for each in paths] or ([] if usual else [Path()])
    for start in starts:
        if not os.path.lexists(start):
            raise NotFound(f"there is no {start}", "name a file or a folder")
    if fix and as_sarif:
        raise InvalidRequest("--fix changes files, and --sarif reports them", "one after the other")
    scan = Scan(known_values(session) if compare else Known(), _accepted(starts[0] if starts else Path()))
    for start in [*starts, *(_usual() if usual else ())]:
        for content in walk(start, scan.passed):
            scan.look(content)
    if back:
        scan.look_back(Repository(starts[0] if starts and starts[0].is_dir() else Path()))
    if fix:
        return move_in(session, scan.files, agent=agent, yes=yes, known=scan.names) or _rest(session, scan)
    _say(session, scan, as_sarif=as_sarif)
    return FOUND if scan.findings else 0


def _rest(session: Session, scan: Scan) -> int:
    """Look again at what was changed: what is still there counts."""
    again = Scan(scan.known, scan.accepted)
    for path in scan.files:
        for content in walk(path, again.passed):
            again.look(content)
    left = again.findings + [each for each in scan.findings if not any(each in found for found in scan.files.values())]
    for finding in left:
        session.out.say(f"still there: {_told(finding, scan)}")
    return FOUND if left else 0


def _told(finding: Finding, scan: Scan) -> str:
    name = scan.names.get(finding.fingerprint, "")
    return f"{finding.where}: {finding.title} [{finding.rule}] {finding.fingerprint}{f', is {name}' if name else ''}"


def _next(finding: Finding, scan: Scan) -> str:
    name = scan.names.get(finding.fingerprint, "")
    if "@" in finding.path or "!" in finding.path:
        return f"keyhole rotate {name}" if name else "change it at its source: what was given away stays given away"
    return f"keyhole scan {finding.path} --fix"


def _say(session: Session, scan: Scan, *, as_sarif: bool) -> None:
    out = session.out
    if as_sarif:
        click.echo(json.dumps(sarif(scan.findings, __version__, scan.names), indent=1))
    else:
        data = [
            {
                "path": each.path,
                "line": each.line,
                "column": each.column,
                "rule": each.rule,
                "title": each.title,
                "fingerprint": each.fingerprint,
                "secret": scan.names.get(each.fingerprint, ""),
                "next": _next(each, scan),
            }
            for each in scan.findings
        ]
        out.result({"findings": data, "notes": scan.passed.notes}, [_told(each, scan) for each in scan.findings])
    for note in scan.passed.notes:
        out.say(note)
    if scan.findings and not as_sarif:
        out.say(f"{len(scan.findings)} found; next: {_next(scan.findings[0], scan)}")
