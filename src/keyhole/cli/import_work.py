"""One run of ``import``: everything is read, then shown or asked about, then moved, then told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keyhole.catalog import Catalog
from keyhole.cli.base import Session
from keyhole.cli.bindings import ensure_vault
from keyhole.cli.consent import ask_yes, has_terminal
from keyhole.cli.granted import DEFAULT_AGENT
from keyhole.cli.import_files import Replaced, replace_values
from keyhole.cli.import_helpers import from_helpers
from keyhole.cli.import_sources import Source, from_file
from keyhole.cli.import_store import CONFLICT, IN_VAULT, Mover, Outcome
from keyhole.config import home
from keyhole.core.errors import InvalidRequest, KeyholeError, PolicyDenied
from keyhole.importers import Skipped
from keyhole.importers.environ import UNKNOWN
from keyhole.importers.recognise import Proposal, Recogniser, Wish
from keyhole.process import harden_process


@dataclass(slots=True)
class Options:
    """What was asked for.

    Attributes:
        names: globs of what is taken although it does not look like a secret.
        skip: globs of what is left.
        under: first part of the names of what the catalog does not know.
        agent: who may use what gets a service.
        no_services: store only.
        replace: put new versions over secrets that have another value.
        placeholders: leave placeholders in the files.
        helpers: ask Docker's credential helpers.
        dry_run: only say what would be taken.
        yes: do not ask.
        secret: name of the one secret that there is.
    """

    names: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    under: str = ""
    agent: str = ""
    no_services: bool = False
    replace: bool = False
    placeholders: bool = False
    helpers: bool = False
    dry_run: bool = False
    yes: bool = False
    secret: str = ""


@dataclass(slots=True)
class Work:
    """One import: read everything, then say or ask, then move it, then say what was done."""

    session: Session
    options: Options
    sources: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read_file(self, path: Path, kind: str, *, required: bool = True) -> None:
        """Read one file; what cannot be read is a note where nobody named it."""
        try:
            self.add(from_file(path, kind))
        except KeyholeError as error:
            if required:
                raise
            self.notes.append(error.reason)

    def add(self, source: Source) -> None:
        """Take a source, with what credential helpers keep for it if that is wanted."""
        self.sources.append(source)
        self.notes += [f"{source.label}: {note}" for note in source.report.notes]
        if source.report.asked and self.options.helpers:
            found, failed = from_helpers(source)
            self.sources += found
            self.notes += failed

    def finish(self, *, ask: bool = False) -> int:
        """Move what was found.

        Args:
            ask: whoever started it named no source, and sees first what there is.
        """
        plan, skipped = self._chosen()
        if ask and plan and not self.options.dry_run and not self.options.yes:
            self._ask(plan)
        outcomes = self._moved(plan)
        replaced, failed = self._replaced(outcomes)
        self._warn(plan, outcomes)
        self._say(outcomes, skipped, replaced)
        for error in failed:
            self.session.out.error(error)
        return 2 if failed or any(outcome.state == CONFLICT for _, outcome in outcomes) else 0

    def _chosen(self) -> tuple[list[tuple[Source, Proposal]], list[tuple[Source, Skipped]]]:

        recogniser = Recogniser(Catalog.load(home() / "catalog"))
        wish = Wish(self.options.names, self.options.skip, self.options.under)
        plan: list[tuple[Source, Proposal]] = []
        skipped: list[tuple[Source, Skipped]] = []
        for source in self.sources:
            taken, left = recogniser.choose(source.report, wish)
            if self.options.secret:
                taken = [replace(proposal, name=self.options.secret) for proposal in taken]
            plan += [(source, proposal) for proposal in taken]
            skipped += [(source, each) for each in left if each.why != UNKNOWN]
        return plan, skipped

    def _ask(self, plan: Sequence[tuple[Source, Proposal]]) -> None:
        rows = [(proposal.name, source.label, proposal.found.where) for source, proposal in plan]
        if not has_terminal():
            raise InvalidRequest(
                f"{len(rows)} credentials could be taken, and nobody can be asked here",
                "look at them with --dry-run, then add --yes; or name a file",
            )
        for row in rows:
            self.session.out.say("  ".join(row))
        if not ask_yes(f"Move these {len(rows)} into the vault?"):
            raise PolicyDenied("nothing is moved", "answer y, or name the files that you mean")

    def _moved(self, plan: Sequence[tuple[Source, Proposal]]) -> list[tuple[Source, Outcome]]:

        options = self.options
        if plan and not options.dry_run:
            harden_process()
            ensure_vault(self.session)
        mover = Mover(
            self.session,
            agent=options.agent,
            services=not options.no_services,
            over=options.replace,
            dry=options.dry_run,
        )
        return [(source, mover.move(source.label, proposal)) for source, proposal in plan]

    def _replaced(self, outcomes: list[tuple[Source, Outcome]]) -> tuple[list[Replaced], list[KeyholeError]]:
        """Placeholders in every file that is meant; one that cannot be replaced leaves the others their turn."""
        done, failed = list[Replaced](), list[KeyholeError]()
        if not self.options.placeholders or self.options.dry_run:
            return done, failed

        for source in self.sources:
            mine = [outcome for of, outcome in outcomes if of is source]
            if source.path is None or not mine:
                continue
            try:
                replaced = replace_values(self.session, source, mine)
            except KeyholeError as error:
                failed.append(error)
                continue
            done += [replaced] if replaced else []
        return done, failed

    def _warn(self, plan: Iterable[tuple[Source, Proposal]], outcomes: Iterable[tuple[Source, Outcome]]) -> None:
        for source in {id(source): source for source, _ in plan}.values():
            if source.exposed:
                self.session.out.warn(f"others on this machine can read {source.label}: chmod 600 {source.label}")
        for _, outcome in outcomes:
            entry = outcome.proposal.entry
            if entry is not None and outcome.proposal.odd:
                self.session.out.warn(f"{outcome.name} does not look like a key of {entry.title}")
        for note in self.notes:
            self.session.out.say(note)

    def _say(
        self,
        outcomes: list[tuple[Source, Outcome]],
        skipped: list[tuple[Source, Skipped]],
        replaced: list[Replaced],
    ) -> None:
        out = self.session.out
        if out.json:
            out.result(
                {
                    "taken": [outcome.as_data() for _, outcome in outcomes],
                    "skipped": [
                        {"name": each.name, "from": source.label, "where": each.where, "why": each.why}
                        for source, each in skipped
                    ],
                    "files": [each.as_data() for each in replaced],
                    "exposed": sorted({source.label for source in self.sources if source.exposed}),
                    "notes": self.notes,
                }
            )
            return
        rows = [
            (o.name, f"{source.label}, {o.proposal.found.where}", ", ".join(o.services) or "-", _state(o))
            for source, o in outcomes
        ]
        out.table(rows, ("secret", "from", "service", "state"), rows, empty="nothing to take")
        for source, each in skipped:
            out.say(f"left: {each.name or 'something'} ({source.label}, {each.where}) {each.why}")
        for file in replaced:
            out.say(f"{file.path} has placeholders now; the original: keyhole import restore {file.backup}")
            for name, why in file.stay.items():
                out.warn(f"the value of {name} is still in {file.path}: {why}")
            for name, variables in file.by_run.items():
                out.warn(
                    f"{name} works by the placeholder that run sets, in {' or '.join(variables)}, not by the file's"
                )
        for line in dict.fromkeys(o.next for _, o in outcomes if o.next):
            out.say(f"next: {line}")
        if any(o.services and o.state in IN_VAULT for _, o in outcomes):
            agent = "" if self.options.agent == DEFAULT_AGENT else f" --agent {self.options.agent}"
            out.say(f"now: keyhole run{agent} -- COMMAND")


def _state(outcome: Outcome) -> str:
    return f"{outcome.state}: {outcome.why}" if outcome.why else outcome.state
