"""What Docker's credential helpers keep, asked for when the user says so (docker-credential-helpers, ``get``)."""

from __future__ import annotations

from keyhole.cli.import_sources import Source, output
from keyhole.core.errors import KeyholeError
from keyhole.importers import Origin
from keyhole.importers.docker import parse_helper


def from_helpers(source: Source) -> tuple[list[Source], list[str]]:
    """Ask every helper that a source names; what was found, and what failed in words."""
    found, failed = list[Source](), list[str]()
    for asked in source.report.asked:
        program = f"docker-credential-{asked.helper}"
        try:
            printed = output((program, "get"), asked.server.encode())
            report = parse_helper(printed, asked.server, Origin(program))
        except KeyholeError as error:
            failed.append(f"{asked.server}: {error.reason}")
            continue
        found.append(Source("docker", program, report))
    return found, failed
