"""What differs from account to account and is no secret: a site, a region, a tenant, an account's id.

A blank is written ``{name}`` in hosts, paths, options of an injection, settings and the test of an entry, and is filled
in once, when the key is added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.catalog.reader import Reader
from keyhole.core.errors import InvalidRequest
from keyhole.core.host import parse_authority, parse_host

KINDS = ("label", "host", "text")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TEXT = re.compile(r"[A-Za-z0-9._@+~-]{1,128}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_WRITTEN = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")


@dataclass(frozen=True, slots=True)
class Blank:
    """One thing to ask for.

    Attributes:
        name: as it is written in the braces.
        ask: the question, in words.
        kind: ``label`` for one label of a host, ``host`` for a whole one, ``text`` for an id or an e-mail address.
        choices: all that it can be; empty for anything of its kind.
        default: taken where nothing is said; empty for none.
        example: of an answer.
        optional: may stay empty; hosts in which it stands are left out then.
    """

    name: str
    ask: str
    kind: str
    choices: tuple[str, ...] = ()
    default: str = ""
    example: str = ""
    optional: bool = False

    def read(self, answer: str, hosts: tuple[str, ...] = ()) -> str:
        """The answer in normal form. A URL, or the whole host where a part of it is asked for, is understood.

        Args:
            answer: what the user said; empty for the default.
            hosts: that the blank is a part of.

        Raises:
            InvalidRequest: it is not of the kind, or not among the choices.
        """
        text = answer.strip() or self.default
        if not text:
            if self.optional:
                return ""
            raise self.wrong("is missing")
        if self.kind != "text":
            text = self._part(text, hosts)
        if self.choices:
            if text not in self.choices:
                raise self.wrong(f"is none of {', '.join(self.choices)}")
            return text
        if self.kind == "label" and not _LABEL.fullmatch(text):
            raise self.wrong("must be one label: letters, digits and inner hyphens")
        if self.kind == "text" and not _TEXT.fullmatch(text):
            raise self.wrong("has a character that it cannot have")
        return self._host(text) if self.kind == "host" else text

    def wrong(self, what: str) -> InvalidRequest:
        """An error about the answer, with an example of a right one."""
        example = self.example or self.default or (self.choices[0] if self.choices else self.sample())
        option = "--host" if self.kind != "text" else f"--set {self.name}="
        join = "" if option.endswith("=") else " "
        return InvalidRequest(f"{self.ask}: the answer {what}", f"for example {option}{join}{example}")

    def sample(self) -> str:
        """An answer that is right, to check an entry with."""
        plain = {"label": "example", "host": "db.example.com", "text": "example"}[self.kind]
        return self.example or (self.choices[0] if self.choices else self.default or plain)

    def _part(self, text: str, hosts: tuple[str, ...]) -> str:
        """What stands at the blank's place in a host, where a whole host or a URL is given."""
        text = re.sub(r"^https?://", "", text.lower()).split("/")[0].removesuffix(".")
        if text in self.choices:
            return text
        for host in hosts:
            before, mark, after = host.partition(f"{{{self.name}}}")
            if mark and len(text) > len(before + after) and text.startswith(before) and text.endswith(after):
                inner = text[len(before) : len(text) - len(after)]
                if (before or after) and (inner in self.choices or (not self.choices and _LABEL.fullmatch(inner))):
                    return inner
        return text

    def _host(self, text: str) -> str:
        try:
            host = parse_authority(text, 443) if ":" in text else parse_host(text)
        except InvalidRequest as error:
            raise self.wrong(f"is not a host ({error.reason})") from None
        if "." not in str(host) or "*" in str(host):
            raise self.wrong("is not a whole host")
        return str(host)


def read_blanks(part: Reader) -> tuple[Blank, ...]:
    """Read the ``[blank.NAME]`` tables, in the order of the file. Raises ``InvalidRequest``."""
    found = []
    for name in part.data:
        table = part.table(name)
        table.only("ask", "kind", "choices", "default", "example", "optional")
        if not _NAME.fullmatch(name) or name in {"key", "placeholder"}:
            raise table.wrong("", "is named with lower case letters, digits and underscores")
        kind = table.text("kind", "label")
        if kind not in KINDS:
            raise table.wrong("kind", f"must be one of {', '.join(KINDS)}")
        blank = Blank(
            name,
            table.text("ask"),
            kind,
            table.texts("choices", required=False),
            table.text("default", ""),
            table.text("example", ""),
            table.flag("optional"),
        )
        if blank.default and blank.choices and blank.default not in blank.choices:
            raise table.wrong("default", "is none of the choices")
        try:
            blank.read(blank.sample())
        except InvalidRequest as error:
            raise table.wrong("", f"has an example that it would refuse: {error.reason}") from error
        found.append(blank)
    return tuple(found)


def written_in(value: Any) -> set[str]:
    """The names of all blanks that stand in a text, or in the texts of a table or list."""
    if isinstance(value, str):
        return set(_WRITTEN.findall(value))
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return set().union(*map(written_in, items))


def put(value: Any, answers: Mapping[str, str]) -> Any:
    """The same with every blank filled in. What has no answer stays as it is: JSON has braces too."""
    if isinstance(value, str):
        return _WRITTEN.sub(lambda found: answers.get(found[1], found[0]), value)
    if isinstance(value, Mapping):
        return {key: put(item, answers) for key, item in value.items()}
    return type(value)(put(item, answers) for item in value) if isinstance(value, list | tuple) else value
