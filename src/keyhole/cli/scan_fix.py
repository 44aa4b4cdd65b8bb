"""What ``scan`` has found, into the vault: as ``import`` does it, with a placeholder where the value stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from keyhole.cli.base import Session
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.import_sources import Source, from_file, read_file
from keyhole.cli.import_work import Options, Work
from keyhole.core.errors import KeyholeError
from keyhole.core.path import DEFAULT_FIELD, parse_name
from keyhole.core.value import Secret
from keyhole.importers import Found, Report, Spot, importer_for
from keyhole.importers.collect import segment
from keyhole.sprawl.finding import Finding, as_text

_STAYS = {
    "url-password": "it is in an address, and programs read the password out of it themselves",
    "connection-password": "it is in an address, and programs read the password out of it themselves",
    "otpauth-secret": "a program reckons with it itself",
}


def move_in(
    session: Session, files: Mapping[Path, list[Finding]], *, agent: str, yes: bool, known: Mapping[str, str]
) -> int:
    """Move the findings of files in; the exit code of ``import``."""
    options = Options(agent=parse_name(agent or DEFAULT_AGENT), placeholders=True, yes=yes)
    work = Work(session, options)
    for path, findings in files.items():
        for source in _sources(work, path, findings, known):
            work.add(source)
    return work.finish(ask=True) if work.sources else 0


def _sources(work: Work, path: Path, findings: list[Finding], known: Mapping[str, str]) -> Iterator[Source]:
    """The file as its importer reads it, where it has one; else by what was found."""
    try:
        if importer_for(str(path.absolute())):
            yield from_file(path)
            return
        content, status = read_file(path)
    except KeyholeError as error:
        work.notes.append(error.reason)
        return
    plain = as_text(content) is content
    report = Report(tuple(_found(path, content, each, known, plain=plain) for each in findings if plain or each))
    yield Source("scan", str(path), report, path, content, status)


def _found(path: Path, content: bytes, finding: Finding, known: Mapping[str, str], *, plain: bool) -> Found:
    value = as_text(content)[finding.start : finding.end]
    group = segment(path.absolute().parent.name or "root")
    stays = "" if plain else "the file is in UTF-16"
    if "private" in finding.rule or finding.rule == "age-secret-key":
        stays = "a program signs or opens with it itself"
    name = known.get(finding.fingerprint, "").partition("#")[0]
    return Found(
        name=name or f"{group}/{finding.rule}-{finding.fingerprint[:6]}",
        fields={DEFAULT_FIELD: Secret(value.decode("utf-8", "replace"))},
        where=f"line {finding.line}",
        kind="ssh-key" if "private" in finding.rule else "api-key",
        entry=finding.entry,
        spots=(Spot(finding.start, finding.end),) if plain else (),
        stays=stays or _STAYS.get(finding.rule, ""),
    )
