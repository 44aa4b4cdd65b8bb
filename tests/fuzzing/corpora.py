"""Inputs that the project has for its other tests."""

import base64
import json
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"


def lines(name):
    """The cases of a file."""
    return [json.loads(line) for line in (DATA / name).read_text().splitlines() if line]


def raw(*names):
    """The bytes of cases that are messages."""
    return [base64.b64decode(case["raw_b64"]) for name in names for case in lines(name)]
