"""What it means: pure, without I/O, clock or waiting."""

from collections.abc import Mapping
from typing import Any, Final

EMPTY: Final[Mapping[str, Any]] = {}
"""Default of fields that map names to something. A mapping, so nobody adds to it."""
