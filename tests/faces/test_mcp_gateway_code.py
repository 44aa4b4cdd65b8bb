"""A server behind the gateway that may write to Keyhole's own files changes nothing of what starts the others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keyhole
from faces.run_fixtures import namespaces_allowed

DRIVER = r"""
import asyncio, json, sys
from keyhole.process.pinned import pin_code

given = json.loads(sys.argv[1])
if given["pinned"]:
    pin_code()

from keyhole.faces.mcp.gateway.child import Said, Shut, connected
from keyhole.faces.mcp.gateway.gate import Gate
from keyhole.scrub import Scrubber


async def start(*argv, **env):
    said = Said(Scrubber.compile([b"nothing-of-interest"]))
    closed = asyncio.Event()
    shut = Shut("auto", [], 1 << 30, lambda text: print("told", text))
    env = {"PATH": given["path"], **env}
    async with connected(argv, env, Gate(), said, closed.set, shut, lambda _: None):
        await asyncio.wait_for(closed.wait(), 30)
        await asyncio.sleep(0.1)
    return said.text


async def main():
    print("first:", await start("sh", "-c", given["attack"]))
    print("second:", await start("sh", "-c", "echo $KEY >&2", KEY="of-the-second"))


asyncio.run(main())
"""
CHANGE = r"""
import pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.py"):
    text = path.read_text()
    path.write_text(text.replace("from __future__ import annotations\n", "from __future__ import annotations\n"
        f"open({sys.argv[2]!r}, 'a').write(__name__ + ' ')\n", 1))
"""


@pytest.fixture
def installed(tmp_path):
    """Keyhole and an interpreter, as whoever installs them for himself has them."""
    if sys.platform != "linux" or not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids user namespaces, so nothing here was shut in")
    ours = tmp_path / "ours"
    shutil.copytree(Path(keyhole.__file__).parent, ours / "keyhole", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    home = Path(sys.executable).parent.parent
    (tmp_path / "pyvenv.cfg").write_text((home / "pyvenv.cfg").read_text())
    (tmp_path / "lib").symlink_to(home / "lib")
    python.symlink_to(Path(sys.executable).resolve())
    (tmp_path / "change.py").write_text(CHANGE)
    return tmp_path


def play(root, attack, *, pinned=True):
    given = {"attack": attack, "path": f"/usr/local/bin:/usr/bin:/bin:{Path(sys.executable).parent}", "pinned": pinned}
    done = subprocess.run(
        [root / "bin" / "python", "-P", "-c", DRIVER, json.dumps(given)],
        env={"PATH": given["path"], "PYTHONPATH": str(root / "ours"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    mark = root / "mark"
    return done.stdout + done.stderr, mark.read_text() if mark.exists() else ""


CODE = "cd {root} && mv ours ours.old && cp -r ours.old ours && python change.py ours {root}/mark && echo done >&2"
INTERPRETER = (
    "cd {root} && rm bin/python && printf '#!/bin/sh\necho python >> {root}/mark\nexec {python} \"$@\"\n' > bin/python"
    " && chmod +x bin/python && echo done >&2"
)


@pytest.mark.parametrize("attack", [CODE, INTERPRETER], ids=["code", "interpreter"])
def test_what_a_server_puts_in_the_place_of_keyholes_files_starts_no_other(installed, attack):
    python = Path(sys.executable).resolve()
    said, ran = play(installed, attack.format(root=installed, python=python))
    assert "first: done" in said, said
    assert ran == "", f"it ran: {ran}"
    assert "second: of-the-second" in said, said
