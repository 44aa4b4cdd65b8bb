"""Is what some commits did to a vault genuine, and what did they do: for a reviewer and for a CI job, without a key.

The base is trusted; what comes after it has to follow from it as on a machine that has seen the base. Each commit on
the way is looked at as well, since its files stay in the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import IntegrityError, KeyholeError
from keyhole.repo.checking import Findings, agrees, check_members
from keyhole.repo.comparing import Difference, compare_states
from keyhole.repo.documents import write_meta
from keyhole.repo.for_git import changes_bytes, is_attributes
from keyhole.repo.hidden import NAMES, digest
from keyhole.repo.members import Role
from keyhole.repo.names import one_line
from keyhole.repo.opened import CONFIG, MANIFEST, OWNER, Opened, recipients_of, verify
from keyhole.repo.seen import Seen
from keyhole.repo.tree import Files

_KNOWN = re.compile(
    r"config\.yaml|manifest\.yaml|owner\.pub|\.gitignore|\.gitattributes|agents/[^/]+/(?:public\.key|private\.key\.escrow)"
    r"|secrets/[^/]+/[^/]+\.(?:enc|meta)|\.x/(?:[^/]+/){1,3}[^/]+\.json|\.x/names\.age"
)
_PUBLIC = re.compile(r"agents/[^/]+/public\.key")
_WORDS = {"+": "added", "-": "removed", "~": "changed"}
_MARKS = re.compile(r"([\\`*_\[\]<>|~#!&])")


@dataclass(frozen=True, slots=True)
class Touched:
    """A file of the vault that a range of commits changed.

    Attributes:
        path: below the vault.
        plain: it is a plain file now; ``False`` for a link or another repository.
        gone: it is not there any more.
    """

    path: str
    plain: bool = True
    gone: bool = False


@dataclass(slots=True)
class Review:
    """What was found.

    Attributes:
        problems: in words, without a value; empty for a range that is genuine.
        difference: what changed in it.
        commits: how many were looked at.
    """

    problems: list[str] = field(default_factory=list)
    difference: Difference = field(default_factory=Difference)
    commits: int = 0

    @property
    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "genuine": not self.problems,
            "problems": self.problems,
            "commits": self.commits,
            **self.difference.data,
        }

    def markdown(self, title: str, opened: Opened | None = None) -> list[str]:
        """Lines for the comment of a pull request. Texts of strangers are not obeyed as markup."""
        shown = (lambda text: text) if opened is None else opened.shown
        changes = [f"- {_WORDS[line.sign]} {_escaped(shown(line.text[2:]))}" for line in self.difference.lines]
        problems = [f"- {_escaped(shown(problem))}" for problem in self.problems]
        said = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "signed and genuine"
        lines = [f"### Vault: {_escaped(title)}: {said}", ""]
        lines += ["**Not to be merged:**", "", *problems, ""] if problems else []
        return lines + (changes or ["Nothing of the vault changed."])


def state_of(files: Files, seen: Seen | None = None) -> Opened | None:
    """The vault of a state, verified; ``None`` where there is none. Raises ``IntegrityError``."""
    if files.read(CONFIG) is None and not files.names(".x"):
        return None
    return verify(files, seen or Seen())


def review(before: Opened | None, after: Files, touched: Iterable[Touched]) -> tuple[Review, Opened | None]:
    """Look at where a range leads.

    Args:
        before: the base, which is trusted; ``None`` where it has no vault.
        after: the files where it ends.
        touched: what changed between them.
    """
    found, touched = Review(), list(touched)
    for each in touched:
        if not each.gone and not (each.plain and _KNOWN.fullmatch(each.path)):
            found.problems.append(f"{each.path} is no file of a vault")
    try:
        opened = state_of(after, _seed(before))
        if opened is None or opened.members is None:
            if before is not None or opened is not None:
                found.problems.append("nothing of the vault is signed" if opened is not None else "the vault is gone")
            return found, opened
    except KeyholeError as error:
        found.problems.append(error.reason)
        return found, None
    found.problems += attributes_in(after, [each.path for each in touched if not each.gone])
    found.problems += _files(opened, touched) + _recipients(opened) + _names(opened)
    found.problems += handed_over(before, opened).values()
    checked = Findings()
    check_members(opened, checked, None)
    found.problems += checked.errors
    found.difference = compare_states(before, opened)
    return found, opened


def look_at(files: Files, touched: Iterable[Touched]) -> list[str]:
    """What is wrong with one commit on the way."""
    try:
        opened = state_of(files)
    except KeyholeError as error:
        return [error.reason]
    return [] if opened is None or opened.members is None else _files(opened, touched)


def require_signed(opened: Opened, touched: Iterable[Touched]) -> None:
    """See that what a remote has changed is what is signed, the format's own files too: other tools believe these.

    Raises:
        IntegrityError: it is not; the reason names each, and a signed vault is to be taken over with ``adopt``.
    """
    if opened.members is None:
        return
    touched = list(touched)
    problems = [f"{each.path} is not a plain file" for each in touched if not (each.plain or each.gone)]
    problems += [f"{each.path} is no file of a vault" for each in touched if _looks_known(each.path) and not each.gone]
    problems += attributes_in(opened.tree, [each.path for each in touched if not each.gone])
    problems += _files(opened, touched) + _names(opened) + _format(opened, touched)
    if problems:
        raise IntegrityError(
            one_line("; ".join(problems[:10])),
            "see who can write to the remote. If another tool of the format did it: git merge @{upstream}, adopt",
        )


def attributes_in(files: Files, paths: Iterable[str]) -> list[str]:
    """Which of these files would let git write other bytes of the vault into the work tree than were committed."""
    return [
        f"{path} lets git change files of the vault"
        for path in paths
        if is_attributes(path) and changes_bytes(files.read(path) or b"")
    ]


def _looks_known(path: str) -> bool:
    """Whether it would be another file of the vault on a disk that does not tell capitals apart."""
    return _KNOWN.fullmatch(path) is None and _KNOWN.fullmatch(path.casefold()) is not None


def handed_over(before: Opened | None, after: Opened) -> dict[str, str]:
    """Secrets that somebody put into other groups who may not write them where they were, and what is wrong with that.

    A sidecar alone does not show it: its signer writes the groups that it names.
    """
    if before is None or before.members is None or after.members is None:
        return {}
    found = {}
    for stem, (_, each) in after.secrets.items():
        signer, was = after.members.members.get(each.signer), before.secrets.get(stem)
        if (
            was is not None
            and signer is not None
            and was[1].version < each.version
            and not signer.writes(was[1].groups)
        ):
            found[stem] = f"{stem} is from {each.signer} now, who may not write it in the groups where it was"
    return found


def require_kept_in_groups(before: Opened | None, after: Opened, chosen: Iterable[str] = ()) -> None:
    """See that nobody took a secret over into groups of one's own, but what a person has chosen to take.

    Raises:
        IntegrityError: somebody did.
    """
    named = {after.where(name) for name in chosen}
    problems = {stem: why for stem, why in handed_over(before, after).items() if stem not in named}
    if problems:
        raise IntegrityError(
            "; ".join(list(problems.values())[:10]),
            f"ask an owner; if it was given to them meanwhile: keyhole repo pull --theirs {next(iter(problems))}",
        )


def _format(opened: Opened, touched: Iterable[Touched]) -> list[str]:
    """Where the format's own files say something else than what is signed."""
    paths = {each.path for each in touched}
    everybody = opened.require_members()
    wanted = {f"agents/{m.name}/public.key": m for m in everybody.members.values() if m.role is not Role.OWNER}
    problems = [
        f"{path} is not the key of {member.name}"
        for path, member in wanted.items()
        if path in paths and opened.tree.read(path) != member.recipient.text.encode()
    ]
    strangers = [path for path in paths if _PUBLIC.fullmatch(path) and path not in wanted]
    problems += [f"{path} is of nobody here" for path in strangers if opened.tree.read(path) is not None]
    owners = {owner.recipient.text for owner in everybody.owners}
    if OWNER in paths and (opened.tree.read(OWNER) or b"").decode(errors="replace").strip() not in owners:
        problems.append(f"{OWNER} is not the key of an owner")
    if MANIFEST in paths and not agrees(opened):
        problems.append(f"{MANIFEST} says something else than what is signed")
    return problems + [
        f"secrets/{stem}.meta says something else than what is signed"
        for stem in opened.names()
        if f"secrets/{stem}.meta" in paths and opened.tree.read(f"secrets/{stem}.meta") != _meta(opened, stem)
    ]


def _meta(opened: Opened, stem: str) -> bytes:
    meta = opened.meta(stem)
    return b"" if meta is None else write_meta(meta)


def _seed(before: Opened | None) -> Seen:
    """What a machine has seen that knows the base."""
    if before is None or before.members is None:
        return Seen()
    return Seen(before.members.vault, *before.state())


def _files(opened: Opened, touched: Iterable[Touched]) -> list[str]:
    """Whether the age file of each secret that was touched is the one that was signed."""
    stems = {
        path.removeprefix("secrets/").removeprefix(".x/secrets/").rsplit(".", 1)[0]
        for path in (each.path for each in touched)
        if path.startswith(("secrets/", ".x/secrets/"))
    }
    problems = []
    for stem in sorted(stems):
        try:
            if stem in opened.names():
                opened.ciphertext(stem)
            elif opened.tree.read(f"secrets/{stem}.enc") is not None:
                problems.append(f"secrets/{stem}.enc is signed by nobody")
        except KeyholeError as error:
            problems.append(error.reason)
    return problems


def _names(opened: Opened) -> list[str]:
    """Whether what opens hidden names is what the members say."""
    if not opened.opaque or digest(opened.tree.read(NAMES) or b"") == opened.require_members().names:
        return []
    return [f"{NAMES} is not the file that the list of members says"]


def _recipients(opened: Opened) -> list[str]:
    everybody = opened.require_members()
    return [
        f"{name} is not sealed for exactly those who are granted it"
        for name in opened.names()
        if (each := opened.secrets[name][1])
        and set(each.recipients) != {r.text for r in recipients_of(everybody, each.groups, each.also)}
    ]


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()).replace("@", "(at)"))
