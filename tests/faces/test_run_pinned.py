"""Where code is loaded from once a command runs."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import keyhole
from keyhole.process.pinned import LATER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="directories are reached by descriptors of Linux")

# Whose adapters run in other people's programs.
ADAPTERS = {"claude-agent-sdk", "langchain", "langgraph", "openai-agents", "pydantic-ai", "structlog"}

LATE = """
import sys
from pathlib import Path
from keyhole.process.pinned import pin_code
import click
home = Path(sys.argv[1])
pinned = pin_code()
home.rename(sys.argv[2])
home.mkdir()
(home / "keyhole").mkdir()
(home / "keyhole" / "demo.py").write_text("raise SystemExit('the wrong one')")
(Path(sys.argv[2]) / "unknown_so_far.py").write_text("")
import keyhole.demo, pymysql, decimal
assert keyhole.demo.VARIABLE
try:
    import unknown_so_far
except ModuleNotFoundError as error:
    print(error.name)
assert sys.argv[1] + "/keyhole" in pinned.kept
names = {Path(path).name for path in pinned.kept}
assert {"cryptography", "click", "pymysql"} <= names, names
"""


def test_late_code_comes_from_the_directory_that_was_there_and_from_no_new_file(tmp_path):
    home, moved = tmp_path / "home", tmp_path / "moved"
    home.mkdir()
    subprocess.run(["cp", "-r", Path(keyhole.__file__).parent, home], check=True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", LATE, str(home), str(moved)],
        env={"PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "unknown_so_far\n"), done.stderr


def test_all_that_keyhole_needs_is_known():
    tops: dict[str, set[str]] = {}
    for name, owners in metadata.packages_distributions().items():
        for owner in owners:
            tops.setdefault(plain(owner), set()).add(name)
    wanted = {"keyhole"}
    extras = set(metadata.metadata("keyhole").get_all("Provides-Extra")) - ADAPTERS
    left = [("keyhole", frozenset(extras))]
    for name, given in left:
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        wanted |= tops.get(name, set())
        for each in map(Requirement, requires):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *given)):
                pair = plain(each.name), frozenset(each.extras)
                left += [pair] if pair not in left else []
    assert {name for name in wanted if name.isidentifier()} - LATER - {"images"} == set()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
