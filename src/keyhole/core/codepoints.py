"""Characters that a reader cannot see, or that change how their neighbours are shown.

Two names that look the same must be the same, so hosts, paths and names refuse these. The set is Unicode's
``Default_Ignorable_Code_Point`` (UAX #44) and the categories of controls, formats, private use and unassigned.
"""

from __future__ import annotations

import unicodedata

# Default ignorables that are letters or marks by category, so that the category alone does not tell.
_IGNORABLE_RANGES = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),
)
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_ROW = 30


def is_invisible(char: str) -> bool:
    """Whether one character is a control, a format or ignorable character, or not a character at all."""
    if " " <= char <= "~":
        return False
    code = ord(char)
    return unicodedata.category(char) in _HIDDEN_CATEGORIES or any(a <= code <= b for a, b in _IGNORABLE_RANGES)


def is_stream_safe(text: str) -> bool:
    """Whether at most 30 combining marks stand in a row, as in all real text (Unicode Standard Annex 15, section 13).

    Normalising takes time that grows with the square of such a row.
    """
    row = 0
    for char in text:
        row = row + 1 if unicodedata.combining(char) else 0
        if row > _ROW:
            return False
    return True
