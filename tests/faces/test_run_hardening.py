"""What a process that holds keys looks like from outside."""

import os
import re
import subprocess
import sys

import pytest

from faces.run_fixtures import runner_for
from keyhole.process import harden_process

HOLDER = "from keyhole.process import harden_process; print(harden_process(), flush=True); input()"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_another_process_of_the_same_user_cannot_look_into_it():
    ordinary = os.geteuid() == 0
    with runner_for(nobody=ordinary) as runner:
        own = {"PYTHONPATH": str(runner.source), "PYTHONDONTWRITEBYTECODE": "1", "CANARY": "0d5f2a"}
        holder = subprocess.Popen(
            [runner.python, "-c", HOLDER],
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **runner.user,
        )
        with holder:
            assert holder.stdout.readline() == "()\n"
            files = [f"/proc/{holder.pid}/{name}" for name in ("environ", "mem", "maps")]
            seen = subprocess.run(["cat", *files], capture_output=True, text=True, check=False, **runner.user)
            limits = subprocess.run(
                ["cat", f"/proc/{holder.pid}/limits"], capture_output=True, text=True, check=True, **runner.user
            )
            holder.stdin.write("\n")
    assert seen.stdout == ""
    assert seen.stderr.count("Permission denied") == len(files)
    assert re.search(r"Max core file size\s+0\s+0", limits.stdout)


def test_a_system_that_cannot_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("keyhole.process.os.name", "nt")
    assert harden_process()
