r"""Files of environment variables (``.env``), as bash, Docker Compose and the dotenv libraries have in common.

``NAME=value``, ``export NAME=value``; values in single quotes or backticks are literal, in double quotes ``\n \r \t``
and a backslash before a quote, a dollar or a backslash count; quoted values may have several lines. Without quotes a
value ends at a space and ``#``. Where readers differ, nothing is taken and the reason says so. Of two with one name the
last counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyhole.importers.collect import Collector, refers
from keyhole.importers.found import Origin, Report, Spot
from keyhole.importers.judge import judge
from keyhole.importers.text import decoded, first, scan

TITLE = "environment file"
PLACES = ("./.env", "./.env.*")

_BLANK = re.compile(r"[ \t\f\v\r\n]*")
_COMMENT = re.compile(r"#[^\r\n]*")
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_QUOTED = {
    '"': re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
    "'": re.compile(r"'([^']*)'"),
    "`": re.compile(r"`([^`]*)`"),
}
_PLAIN = re.compile(r"[^\r\n]*")
_REST = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=[\r\n]|\Z)")
_INLINE = re.compile(r"(?<=[ \t])#")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$", "'": "'", "`": "`"}
_ASSIGNED = re.compile(r"#+[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*[\"'`]?([^\"'`\r\n#]*)")


@dataclass(frozen=True, slots=True)
class _Assignment:
    name: str
    line: int
    quote: str
    raw: str
    start: int

    @property
    def where(self) -> str:
        return f"line {self.line}"

    @property
    def spot(self) -> Spot:
        return Spot(self.start, self.start + len(self.raw))

    def value(self) -> str | None:
        """What a program would find in the variable; ``None`` where it is not UTF-8."""
        text = decoded(self.raw)
        if text is None or self.quote != '"':
            return text
        return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text)

    def unsure(self) -> str:
        """Why readers do not agree on what the value is; empty where they do."""
        if self.quote in {"'", "`"}:
            return ""
        if "$" in self.raw and refers(self.raw.replace("\\$", "")):
            return "refers to a variable or a command, which is not expanded here"
        if not self.quote and ("#" in self.raw or self.raw.startswith("`") or "\\" in self.raw):
            return "has a '#', a backtick or a backslash without quotes, which programs read differently"
        return ""


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    text = scan(content)
    found = Collector(origin)
    assignments = list(_assignments(text, found))
    by_name: dict[str, list[_Assignment]] = {}
    for assignment in assignments:
        by_name.setdefault(assignment.name, []).append(assignment)
    for name, same in by_name.items():
        last = same[-1]
        value, why = last.value(), last.unsure()
        for earlier in same[:-1]:
            if earlier.value() != value or why:
                found.skip(name, earlier.where, f"is given again in {last.where}, which counts; it stays in the file")
        if why:
            found.skip(name, last.where, why)
            continue
        found.variable(name, value, last.where, tuple(one.spot for one in same if one.value() == value))
    return found.report()


def _assignments(text: str, found: Collector) -> list[_Assignment]:
    result, position, line, counted = list[_Assignment](), first(text), 1, 0
    while position < len(text):
        position = _end(_BLANK, text, position)
        line, counted = line + _breaks(text, counted, position), position
        comment = _COMMENT.match(text, position)
        if comment:
            _look_into(comment[0], f"line {line}", found)
            position = comment.end()
            continue
        name = _NAME.match(text, position)
        if name is None:
            if position < len(text):
                found.skip("", f"line {line}", "is no assignment")
            position = _end(_PLAIN, text, position)
            continue
        assignment, position = _value(text, name, line, found)
        if assignment is not None:
            result.append(assignment)
    return result


def _value(text: str, name: re.Match[str], line: int, found: Collector) -> tuple[_Assignment | None, int]:
    """The value after a name, and where it ends."""
    begin = name.end()
    quote = text[begin : begin + 1]
    if quote in _QUOTED and quote:
        quoted = _QUOTED[quote].match(text, begin)
        end_of_line = _end(_PLAIN, text, begin)
        closed = quoted is not None and _REST.match(text, quoted.end()) is not None
        if quoted is None or not closed:
            one_line = quoted is not None and quoted.end() <= end_of_line
            why = "goes on after its closing quote" if one_line else "begins with a quote that is not closed"
            found.skip(name[1], f"line {line}", why)
            return None, end_of_line
        return _Assignment(name[1], line, quote, quoted[1], quoted.start(1)), _end(_REST, text, quoted.end())
    end_of_line = _end(_PLAIN, text, begin)
    # What follows the equals sign at once is a value, even a '#'; what programs make of that differs.
    raw = _INLINE.split(text[name.end(0) - 1 : end_of_line], maxsplit=1)[0][1:].rstrip(" \t\f\v")
    return _Assignment(name[1], line, "", raw, begin), end_of_line


def _look_into(comment: str, where: str, found: Collector) -> None:
    """An assignment that is commented out may hold a value that still works."""
    assigned = _ASSIGNED.match(comment)
    value = decoded(assigned[2].strip()) if assigned else None
    if assigned and value and not refers(value) and not judge(assigned[1], value).doubt:
        found.skip(assigned[1], where, "is in a comment; what is there stays in the file")


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _breaks(text: str, start: int, end: int) -> int:
    """Line ends between two offsets; a line feed after a carriage return is the same end."""
    part = text[start:end]
    return part.count("\n") + part.count("\r") - part.count("\r\n")
