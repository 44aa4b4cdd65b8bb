"""How the tests of `keyhole run` start commands: through a driver, as this user or as the ordinary user 65534."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import trustme

NOBODY = 65534
SYSTEM_PYTHON = "/usr/bin/python3"  # an interpreter in root's home cannot be executed by others
_HERE = Path(__file__).parent
_SOURCE = _HERE.parents[1] / "src"


@cache
def authority() -> bytes:
    return trustme.CA(organization_name="Keyhole test").cert_pem.bytes()


@dataclass
class Outcome:
    code: int
    out: str
    err: str
    level: str = ""
    missing: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    network: str = ""


@dataclass
class Runner:
    """Starts drivers as one user. `place` is a directory that this user can write and enter."""

    place: Path
    python: str
    source: Path
    user: dict

    def command(self, argv: list[str], **given) -> dict:
        """Arguments for `subprocess` that start a driver for this plan."""
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "XDG_RUNTIME_DIR": str(self.place)}
        env |= given.pop("env", {})
        plan = {"argv": argv, "ca": authority().decode(), "env": env} | given
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1"}
        driver = str(self.source / "run_driver.py")
        return {"args": [self.python, driver, json.dumps(plan)], "env": own, "cwd": "/", **self.user}

    def run(self, argv: list[str], **given) -> Outcome:
        told = self.place / "told.json"
        done = subprocess.run(
            **self.command(argv, told=str(told), **given), capture_output=True, text=True, timeout=60, check=False
        )
        assert told.exists(), done.stderr
        said = json.loads(told.read_text())
        assert said["code"] == done.returncode
        words = (said.get("level", ""), said.get("missing", []), said["messages"], said.get("network", ""))
        return Outcome(done.returncode, done.stdout, done.stderr, *words)


@contextmanager
def runner_for(*, nobody: bool) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory(prefix="kh-") as name:
        root = Path(name)
        source, place = root / "source", root / "place"
        ignored = shutil.ignore_patterns("*.pyc.*")  # half written ones, of another process
        shutil.copytree(_SOURCE / "keyhole", source / "keyhole", ignore=ignored)  # a checkout may be private
        shutil.copy(_HERE / "run_driver.py", source)
        place.mkdir()
        root.chmod(0o755)
        if nobody:
            os.chown(place, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if nobody else {}
        yield Runner(place, SYSTEM_PYTHON if nobody else sys.executable, source, user)


def namespaces_allowed(*, nobody: bool) -> bool:
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if nobody else {}
    unshare = ["unshare", "-Urmpf", "--mount-proc", "true"]
    return subprocess.run(unshare, capture_output=True, check=False, **user).returncode == 0
