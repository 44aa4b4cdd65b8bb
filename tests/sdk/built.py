"""The TypeScript SDK as `make test` builds it, and programs of Node that use it."""

import fcntl
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

from e2e.world import node as newer

ROOT = Path(__file__).parents[2]
SOURCES, BUILT = ROOT / "sdk/node", ROOT / ".cache/sdk"


@cache
def node() -> str:
    """The oldest Node that is here, of those that the SDK is for."""
    found = shutil.which("node")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout if found else "v0"
    return found if int(said[1:].partition(".")[0]) >= 20 else newer()


def _is_current() -> bool:
    tracked = [path for path in SOURCES.rglob("*") if path.is_file() and "node_modules" not in path.parts]
    copies = [(path, BUILT / path.relative_to(SOURCES)) for path in tracked]
    return all(copy.is_file() and copy.read_bytes() == path.read_bytes() for path, copy in copies)


@cache
def built() -> Path:
    """The folder of the built SDK; what was changed since is built again."""
    assert (BUILT / "node_modules").is_dir(), f"there are no packages in {BUILT}: make test gets them"
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (BUILT / "dist/index.js").exists() or not _is_current():
            subprocess.run([ROOT / "scripts/sdk-node", BUILT], cwd=ROOT, check=True)
    return BUILT


def run(program: str, *words: str, given: object = None, env: dict[str, str] | None = None, seconds: float = 60):
    """A program of `sdk/node/test`, with JSON on its stdin. Gives the finished process."""
    return subprocess.run(
        [node(), str(built() / "test" / program), *words],
        input=json.dumps(given).encode(),
        capture_output=True,
        env=env,
        timeout=seconds,
        check=False,
    )


def answer(program: str, *words: str, **options) -> object:
    """The JSON that such a program prints."""
    done = run(program, *words, **options)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
