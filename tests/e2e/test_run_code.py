"""A command that may write to Keyhole's own files runs nothing in the process that has the keys."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keyhole
from faces.run_fixtures import namespaces_allowed

CHANGE = r"""
import pathlib, sys
first = "from __future__ import annotations\n"
mark = f"open({sys.argv[2]!r}, 'a').write(__name__ + ' ')\n"
for path in pathlib.Path(sys.argv[1]).rglob("*.py"):
    try:
        text = path.read_text()
        path.write_text(text.replace(first, first + mark, 1))
    except OSError as error:
        print(error.strerror)
        break
"""
# Both requests have the broker load what nobody has needed so far.
ASK = "curl -sS https://api.test/ http://api.test/ >/dev/null 2>&1; "
IN_PLACE = '"$0" -c "$1" "$2" "$3"; ' + ASK
INSTEAD = 'mv "$2" "$2.old" && cp -r "$2.old" "$2" && "$0" -c "$1" "$2" "$3"; ' + ASK


def environment(folder):
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(folder / "ours"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "KEYHOLE_HOME": str(folder / "vault"),
        "KEYHOLE_SEAL": f"keyfile:{folder / 'key'}",
    }


@pytest.fixture
def installed(tmp_path):
    """Keyhole as whoever installs it for himself has it, with a vault."""
    if sys.platform != "linux" or not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids user namespaces, so the sandbox itself was not tested")
    ours = tmp_path / "ours"
    shutil.copytree(Path(keyhole.__file__).parent, ours / "keyhole", ignore=shutil.ignore_patterns("__pycache__"))
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    env = environment(tmp_path)

    def call(*words, **more):
        command = [sys.executable, "-P", "-m", "keyhole", *words]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True, **more)

    call("init")
    call("set", "api/key", input="a-real-value-0d5f2a")
    call("service", "add", "api", "--host", "api.test", "--secret", "api/key", "--inject", "bearer")
    call("agent", "add", "default")
    call("grant", "default", "api")
    return call, ours, tmp_path / "mark"


@pytest.mark.parametrize(("script", "said"), [(IN_PLACE, "Read-only file system\n"), (INSTEAD, "")])
def test_what_a_command_writes_into_keyholes_files_does_not_run_with_the_keys(installed, script, said):
    call, ours, mark = installed
    done = call("run", "--sandbox", "require", "--", "sh", "-c", script, sys.executable, CHANGE, str(ours), str(mark))
    assert (done.stdout, done.stderr.splitlines()[0]) == (said, "keyhole: sandbox full, network: the broker alone")
    assert not mark.exists(), f"it ran: {mark.read_text()}"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_loads_nothing_that_was_put_in_the_place_of_its_files(installed, workers):
    _, ours, mark = installed
    server = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "keyhole", "--json", "server", "--workers", workers),
            *("--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0"),
        ],
        env=environment(ours.parent),
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            said = json.loads(server.stdout.readline())
            instead = ours.with_name("instead")
            shutil.copytree(ours, instead)
            subprocess.run([sys.executable, "-c", CHANGE, instead, mark], check=True)
            ours.rename(ours.with_name("ours.old"))
            instead.rename(ours)
            for path in ("sys/health", "sys/keyhole", "sys/internal/specs/openapi", "sys/audit", "secret/data/x"):
                subprocess.run(["curl", "-sS", "-o", os.devnull, f"{said['api']}/v1/{path}"], check=True)
            asked = ["curl", "-s", "-o", os.devnull, "-x", said["proxy"].replace("://", "://agent:wrong@")]
            for url in ("http://api.test/", "https://api.test/"):
                subprocess.run([*asked, url], check=False)
        finally:
            server.terminate()
    assert server.returncode == 0
    assert not mark.exists(), f"it ran: {mark.read_text()}"
