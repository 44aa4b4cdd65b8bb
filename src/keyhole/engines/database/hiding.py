"""Words of a database about what it was sent, without what it was sent in confidence."""

from __future__ import annotations

import re
from collections.abc import Iterable

_QUOTED = re.compile(r'"([^"]*)"|\'([^\']*)\'|`([^`]*)`')
_SURE = 8  # characters; a shorter text may stand in a message by chance, and is only looked for between quotes
_LONGEST = 400
MASK = "[password]"


def hidden(words: str, secrets: Iterable[str]) -> str:
    """Words in which no password stands, nor between quotes any part of one: a parser quotes where it stumbled.

    Case does not count: what a database takes for a name or a keyword it folds.
    """
    known = [secret.lower() for secret in secrets if secret]
    for secret in known:
        if len(secret) >= _SURE:
            words = re.sub(re.escape(secret), MASK, words, flags=re.IGNORECASE)

    def mask(match: re.Match[str]) -> str:
        inside = next((group for group in match.groups() if group is not None), "").lower()
        return f'"{MASK}"' if inside and any(inside in secret or secret in inside for secret in known) else match[0]

    return _QUOTED.sub(mask, " ".join(words.split()))[:_LONGEST]
