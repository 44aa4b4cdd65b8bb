"""The adapter for CrewAI with CrewAI itself, which is too big (900 MB) to be there for each run of the tests.

    make crewai

It installs what `requirements-crewai.txt` names in an environment of its own, once.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from adapters.frameworks.driver import HERE, checked


def main(python: Path) -> int:
    """Run the checks with an interpreter that has CrewAI, and say what they said."""
    with tempfile.TemporaryDirectory() as folder:
        [(_, said)] = checked(python.absolute(), [HERE / "check_crewai.py"], Path(folder)).items()
    for name, failure in said.items():
        print(f"{name.replace('_', ' ')}: {failure or 'yes'}")
    return 1 if any(said.values()) or len(said) < 3 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
