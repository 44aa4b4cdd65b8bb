"""Every `keyhole …` command that a hint, the help, the README or a page names exists, with the options that it gets."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from keyhole.cli.root import root

ROOT = Path(__file__).parents[2]
# A command ends where prose goes on: at the end of the text, a full stop, a comma, a bracket, a back-tick and so on.
_NAMED = re.compile(r"(?<![\w/.-])keyhole ((?:[a-z][a-z-]*|--?[a-z][a-z-]*)(?: [^\s`;,()|<>:\"&]+)*)")
_PROSE = re.compile(
    r"keyhole (?:sandbox|is|was|has|and|or|in|on|to|can|does|with|server of|of|the|journal|keyring|proxy|placeholder"
    r"|import Client)\b"
)
_LABELS = {"crypto"}  # folders whose texts separate the uses of keys; so does the page of bytes on disk


def _texts() -> Iterator[tuple[str, str]]:
    """Where, and a text in which commands may be named."""
    for path in sorted((ROOT / "src/keyhole").rglob("*.py")):
        if path.parent.name in _LABELS:
            continue
        source = path.read_text("utf-8")
        if "keyhole " not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "keyhole " in node.value:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "NAME" for p in node.values]
                if "keyhole " in (text := "".join(map(str, parts))):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text
    for path in [
        ROOT / "README.md",
        *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.stem != "format"),
    ]:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            for code in re.findall(r"`(keyhole [^`]+)`", line) or ([line[2:]] if line.startswith("$ keyhole ") else []):
                yield f"{path.relative_to(ROOT)}:{number}", code


def _commands() -> Iterator[tuple[str, str]]:
    for where, text in _texts():
        for line in text.splitlines():
            for match in _NAMED.finditer(line):
                if not _PROSE.match(match[0]):
                    yield where, match[1]


def _problem(words: list[str]) -> str:
    """What does not exist; empty when all of it does."""
    command: click.Command = root
    context = click.Context(root, info_name="keyhole")
    for at, word in enumerate(words):
        if word.startswith("-"):
            break
        if not isinstance(command, click.Group):
            break
        try:
            name, found, _ = command.resolve_command(context, words[at:])
        except click.UsageError:
            found = None
        if found is None:
            return f"there is no command {' '.join(words[: at + 1])!r}"
        command = found
        if name != word:
            break  # a group that takes arguments of its own
        context = click.Context(command, parent=context, info_name=word)
    known = {
        option
        for c in (command, root)
        for p in c.get_params(click.Context(c))
        for option in (*p.opts, *p.secondary_opts)
    }
    for word in words:
        if word == "--":
            break
        name = word.partition("=")[0]
        if re.fullmatch(r"--?[a-z][a-z-]*", name) and name not in known | {"--help", "-h"}:
            return f"{command.name} has no option {name}"
    return ""


def test_each_exists_with_its_options() -> None:
    commands = sorted(set(_commands()))
    assert len(commands) > 150
    problems = []
    for where, text in commands:
        try:
            words = shlex.split(text.rstrip(".'"))
        except ValueError:
            words = text.rstrip(".'").split()
        if problem := _problem(words):
            problems.append(f"{where}: keyhole {text}: {problem}")
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("text", ["nothing here", "service dance", "get --shout"])
def test_one_that_does_not_exist_would_be_noticed(text: str) -> None:
    assert _problem(text.split())
