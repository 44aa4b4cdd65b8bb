"""Passwords by rules: so many characters, of which at least so many from each of some sets.

Every password that fits the rules is as likely as any other: whole candidates are drawn from all characters, and those
that break a rule are thrown away. Placing the demanded characters first and shuffling would favour some.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from keyhole.core.errors import InvalidRequest

MIN_LENGTH = 4
MAX_LENGTH = 100
MAX_CHARACTERS = 256
"""Most different characters of all sets together."""

_TRIES = 2000
_PROBES = 200
_FITTING = 10  # of the probes: fewer would let generation fail now and then


class CharacterRule(NamedTuple):
    """At least ``least`` characters come from ``characters``, which has none twice."""

    characters: str
    least: int = 0


class PasswordRules(NamedTuple):
    """How a password is made; of all rules together come the characters that it may have."""

    length: int
    rules: tuple[CharacterRule, ...]

    def checked(self) -> PasswordRules:
        """These rules, when passwords can be made by them. Raises ``InvalidRequest``."""
        if not MIN_LENGTH <= self.length <= MAX_LENGTH:
            raise InvalidRequest(f"length is from {MIN_LENGTH} to {MAX_LENGTH}", "write: length = 20")
        if not self.rules:
            raise InvalidRequest("there is no rule with a charset", 'write: rule "charset" { charset = "abc…" }')
        if sum(rule.least for rule in self.rules) > self.length:
            raise InvalidRequest("the rules demand more characters than length has", "make it longer")
        alphabet = self.alphabet()
        if len(alphabet) > MAX_CHARACTERS:
            raise InvalidRequest(f"the sets have more than {MAX_CHARACTERS} different characters")
        if sum(self._fits(_draw(alphabet, self.length)) for _ in range(_PROBES)) < _FITTING:
            raise InvalidRequest(
                "hardly any password of this length has the characters that the rules demand",
                "demand fewer, or make it longer",
            )
        return self

    def alphabet(self) -> str:
        """All characters that a password may have, each once."""
        return "".join(dict.fromkeys("".join(rule.characters for rule in self.rules)))

    def generate(self) -> str:
        """A new password. Raises ``InvalidRequest`` when none was found within bounds."""
        alphabet = self.alphabet()
        for _ in range(_TRIES):
            if self._fits(found := _draw(alphabet, self.length)):
                return found
        raise InvalidRequest("no password that fits the policy was found", "demand fewer characters, or more length")

    def _fits(self, password: str) -> bool:
        return all(
            rule.least == 0 or sum(char in rule.characters for char in password) >= rule.least for rule in self.rules
        )


def _draw(alphabet: Sequence[str], length: int) -> str:
    """Characters, each as likely as the other: bytes that would favour the first ones are passed over."""
    bound = 256 - 256 % len(alphabet)
    found: list[str] = []
    while len(found) < length:
        found += [alphabet[byte % len(alphabet)] for byte in os.urandom(length) if byte < bound]
    return "".join(found[:length])
