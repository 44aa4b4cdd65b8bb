"""Write the manual pages in man/ again from the commands themselves: python scripts/man_pages.py.

One page for ``keyhole`` and one for each of its commands, which describes the verbs of a noun too (man(7), roff).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from keyhole.cli.root import COMMANDS, root

FOLDER = Path(__file__).parents[1] / "man"
_EXITS = (
    ("0", "done"),
    ("1", "a check found a violation"),
    ("2", "failed, or cannot tell"),
    ("3", "usage"),
    ("4", "denied"),
    ("5", "not found"),
    ("6", "unreachable or sealed"),
)


def escape(text: str) -> str:
    """A text as roff shows it, whatever its lines begin with."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("…", "...")
    return "\n".join(f"\\&{line}" if line.startswith((".", "\\(aq")) else line for line in text.splitlines())


def paragraphs(text: str) -> Iterator[str]:
    """Help text: paragraphs are set apart, lines within one flow."""
    for part in re.split(r"\n\s*\n", (text or "").replace("\b", "").strip()):
        yield ".PP"
        yield escape(" ".join(line.strip() for line in part.splitlines()))


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """What can be said, with what it means."""
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            yield ".TP"
            yield f"\\fB{escape(record[0])}\\fR"
            yield escape(record[1] or "")
    # Click keeps the option of the first context that it was asked in, which may have been one without the short form.
    yield from (".TP", "\\fB\\-h, \\-\\-help\\fR", "Show this message and exit.")


def examples(command: click.Command) -> Iterator[str]:
    """As they are typed."""
    text = getattr(command, "examples", "").strip()
    if text:
        yield ".nf"
        yield from (escape(line.strip()) for line in text.splitlines())
        yield ".fi"


def usage(command: click.Command, context: click.Context) -> str:
    """How it is called."""
    return f"\\fB{escape(context.command_path)}\\fR {escape(' '.join(command.collect_usage_pieces(context)))}"


def _verbs(noun: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for verb in sorted(noun.list_commands(context)):
        command = noun.get_command(context, verb)
        if command is None:
            raise LookupError(verb)
        yield verb, command


def page(name: str, command: click.Command, brief: str) -> str:
    """The page of a command and its verbs."""
    parent = click.Context(root, info_name="keyhole", **root.context_settings)
    context = parent if command is root else click.Context(command, parent=parent, info_name=name)
    title = "keyhole" if command is root else f"keyhole-{name}"
    verbs = list(_verbs(command, context)) if isinstance(command, click.Group) and command is not root else []
    lines = [f'.TH {title.upper()} 1 "" keyhole "Keyhole manual"', ".SH NAME", f"{title} \\- {escape(brief)}"]
    lines += [".SH SYNOPSIS", usage(command, context)]
    for verb, inner in verbs:
        lines += [".br", usage(inner, click.Context(inner, parent=context, info_name=verb))]
    lines += [".SH DESCRIPTION", *paragraphs(command.help or "")]
    if command is root:
        for area, commands in COMMANDS.items():
            lines += [f".SS {escape(area)}"]
            for each, (_, said) in commands.items():
                lines += [".TP", f"\\fBkeyhole\\-{escape(each)}\\fR(1)", escape(said)]
    lines += [".SH OPTIONS", *options(command, context)]
    for verb, inner in verbs:
        within = click.Context(inner, parent=context, info_name=verb)
        lines += [f".SS {escape(within.command_path)}", *paragraphs(inner.help or ""), *options(inner, within)]
        lines += [".PP", *examples(inner)]
    if command is not root:
        lines += [".PP", "Options of every command stand in \\fBkeyhole\\fR(1)."]
    lines += [".SH EXAMPLES", *examples(command)]
    lines += [".SH EXIT STATUS"]
    for code, meaning in _EXITS:
        lines += [".TP", code, meaning]
    lines += [".SH SEE ALSO"]
    lines += ["\\fBkeyhole\\fR(1)" if command is not root else "The pages of its commands, and the documentation."]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """All of them, by file name."""
    found = {"keyhole.1": page("", root, "AI agents use credentials without ever holding them")}
    context = click.Context(root, info_name="keyhole")
    for commands in COMMANDS.values():
        for name, (_, brief) in commands.items():
            command = root.get_command(context, name)
            if command is None:
                raise LookupError(name)
            found[f"keyhole-{name}.1"] = page(name, command, brief.rstrip("."))
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    wanted = pages()
    for known in FOLDER.glob("*.1"):
        if known.name not in wanted:
            known.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, "utf-8")
