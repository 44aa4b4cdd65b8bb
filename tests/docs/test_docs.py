"""Every command block of README and docs is run, page by page, in a fresh home; what it prints is what the page says.

In a page's Markdown:

- ```` ```console ````: lines that begin with `$ ` are typed (`> ` continues one), the others are what comes back on
  the terminal. `…` stands for anything within a line, a line of its own for any lines; ports
  of five digits are all the same.
- ```` ```sh ```` and ```` ```python ````: run to the end without a mistake; what they print is not looked at.
- ```` ```text ```` and others: not run.
- an HTML comment `<!-- run … -->` runs unseen, for what a page takes for granted.

The first page that shows a command starts it as a user does, the later ones by `nursery`, for speed.

All blocks of a page share one shell. `key.txt` and `new-key.txt`, each with something like a Stripe key, lie in the
working directory, and the vault is sealed with a key file, so that nobody is asked for a passphrase.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

import nursery

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- run\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?<![\w/.-])keyhole ([a-z-]+)(?: ([a-z][a-z-]*))?")
_SECONDS = 90


@dataclass
class Step:
    command: str
    expected: str | None  # None: must succeed
    line: int


def steps(text: str) -> list[Step]:
    found = []
    for match in _BLOCK.finditer(text):
        kind, content, hidden = match.groups()
        line = text.count("\n", 0, match.start()) + 2
        if hidden is not None:
            found.append(Step(hidden, None, line))
        elif kind == "sh":
            found.append(Step(content, None, line))
        elif kind == "python":
            found.append(Step(f"python - <<'KEYHOLE_END'\n{content}KEYHOLE_END\n", None, line))
        elif kind == "console":
            found += _typed(content, line)
    return found


def _typed(content: str, line: int) -> list[Step]:
    found: list[Step] = []
    for number, text in enumerate(content.splitlines(), line):
        if text.startswith("$ "):
            found.append(Step(text[2:] + "\n", "", number))
        elif text.startswith("> ") and found and not found[-1].expected:
            found[-1].command += text[2:] + "\n"
        else:
            assert found, f"line {number}: output without a command"
            found[-1].expected += text + "\n"
    return found


@cache
def first_shown() -> dict[Path, set[str]]:
    """The commands that no page before shows."""
    known: set[str] = set()
    found: dict[Path, set[str]] = {}
    for page in PAGES:
        found[page] = set(_commands(page)) - known
        known |= found[page]
    return found


def _commands(page: Path) -> Iterator[str]:
    from keyhole.cli.root import root

    for step in steps(page.read_text()):
        for name, verb in _COMMAND.findall(step.command):
            noun = isinstance(root.get_command(click.Context(root), name), click.Group)
            yield f"{name} {verb}" if noun else name


def same_ports(text: str) -> str:
    """Ports are free ones, in a transcript as in a run."""
    return re.sub(r"(?<=:)\d{5}\b", "PORT.", text)


def pattern(expected: str) -> re.Pattern[str]:
    lines = [line.rstrip() for line in same_ports(expected).strip("\n").split("\n")]
    parts = [r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n" for line in lines]
    return re.compile(r"\n*" + "".join(parts) + r"\n*")


def script(todo: list[Step], folder: Path) -> str:
    parts = ["trap 'kill $(jobs -p) 2>/dev/null' EXIT"]
    for number, step in enumerate(todo):
        before, after = ("set -e", "set +e") if step.expected is None else ("(exit ${code:-0})", "code=$?")
        parts += [f"{{ {before}\n{step.command}\n{after}; }} >{folder}/{number}.out 2>&1 </dev/null"]
        parts += [f"touch {folder}/{number}.done"]
    return "\n".join(parts)


@pytest.mark.parametrize("page", [page for page in PAGES if steps(page.read_text())], ids=lambda page: page.name)
def test_the_commands_of_a_page_do_what_it_says(page, tmp_path):
    todo = steps(page.read_text())
    work, said = tmp_path / "work", tmp_path / "said"
    for folder in (work, said, tmp_path / "home", tmp_path / "tmp", tmp_path / "bin"):
        folder.mkdir(mode=0o700)
    nursery.program(tmp_path / "bin", real=first_shown()[page])
    (work / "key.txt").write_text("sk_test_51ExampleExampleExample00\n")
    (work / "new-key.txt").write_text("sk_test_51ExampleExampleExample01\n")
    (tmp_path / "unseal.key").write_bytes(os.urandom(32))
    (tmp_path / "unseal.key").chmod(0o600)
    env = {
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "KEYHOLE_SEAL": f"keyfile:{tmp_path / 'unseal.key'}",
        "COLUMNS": "100",
    }
    shell = subprocess.Popen(["bash", "-c", script(todo, said)], cwd=work, env=env, start_new_session=True)
    try:
        shell.wait(_SECONDS)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    for number, step in enumerate(todo):
        where = f"{page.name}:{step.line}: {step.command.strip()}"
        out = said / f"{number}.out"
        text = out.read_text() if out.exists() else ""
        assert (said / f"{number}.done").exists(), f"{where}\nfailed with:\n{text}"
        if step.expected:
            lines = "".join(line.rstrip() + "\n" for line in text.splitlines())
            assert pattern(step.expected).fullmatch(same_ports(lines)), (
                f"{where}\nprinted:\n{text}\nand not:\n{step.expected}"
            )


def test_a_page_that_promises_another_output_fails():
    assert pattern("a … c\n…\nz\n").fullmatch("a b c\nanything\nmore\nz\n")
    assert not pattern("a … c\n").fullmatch("a b d\n")
    assert not pattern("a\n").fullmatch("a\nb\n")


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
