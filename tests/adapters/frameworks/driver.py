"""Have the checks of frameworks run in their own environment, against a server that has the secret that they use."""

import json
import os
import subprocess
from pathlib import Path

from cli_driver import environment, serving
from keyhole import Client

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
VALUE = "xoxb-0123456789"


def checked(python: Path, files: list[Path], folder: Path) -> dict[str, dict[str, str]]:
    """What each check of each file said: nothing, or how it failed."""
    with serving("--dev", "--dev-root-token-id", "root", env=environment(KEYHOLE_HOME=str(folder))) as (_, started):
        with Client(started["api"], token="root") as kh:
            kh.write("secret/data/slack/bot-token", {"data": {"value": VALUE}})
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT / "src"),
            "KEYHOLE_ADDR": started["api"],
            "KEYHOLE_TOKEN": "root",
        }
        command = [str(python), str(HERE / "run.py"), *map(str, files)]
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert VALUE not in done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found
