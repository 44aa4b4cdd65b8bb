"""The PostgreSQL of the tests does not outlive them, even when they are killed."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
import pg_watchdog, postgres_server
postgres_server.socket_folder()
print(pg_watchdog.postmaster(postgres_server.folder()), flush=True)
sys.stdin.read()
"""


def test_server_ends_when_the_tests_that_started_it_are_killed():
    tests = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid = tests.stdout.readline()
    handle = os.pidfd_open(int(pid))
    os.killpg(tests.pid, signal.SIGKILL)
    tests.wait()
    tests.stdin.close()
    tests.stdout.close()
    ready, _, _ = select.select([handle], [], [], 60)
    os.close(handle)
    assert ready, "the server is still there"
