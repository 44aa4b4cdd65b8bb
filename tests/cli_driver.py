"""Runs the command line: inside this process for speed, or as a real process where that is the point."""

import atexit
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nursery
from children import child
from keyhole.cli import main


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        return json.loads(self.err.strip().splitlines()[-1])["error"]


class _Input(io.TextIOWrapper):
    def fileno(self):
        raise OSError("not a file")


def run(*args, stdin=b""):
    """One command in this process. Its stdin and stdout are pipes, as far as it can tell."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    before = sys.stdin
    sys.stdin = _Input(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()), "utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(arg) for arg in args])
    finally:
        sys.stdin = before
    for stream in (out, err):
        stream.flush()
    return Ran(code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())


def ok(*args, stdin=b""):
    """One command that has to succeed."""
    ran = run(*args, stdin=stdin)
    assert ran.code == 0, ran
    return ran


def environment(**more):
    """The environment of a process without any Keyhole or Vault settings but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KEYHOLE_", "VAULT_"))}
    return {**kept, **more}


@cache
def forked():
    """The command `keyhole` as `nursery` makes it; what starts another program is left to the real one."""
    folder = tempfile.mkdtemp(prefix="keyhole-forked-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(nursery.program(Path(folder), real=("run", "leases run")))


def spawn(*args, stdin=b"", env, **options):
    """One command as a process of its own, without a controlling terminal."""
    done = subprocess.run(
        [forked(), *map(str, args)],
        input=stdin,
        capture_output=True,
        env=env,
        timeout=60,
        start_new_session=True,
        check=False,
        **options,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def serving(*args, env, real=False):
    """A server as a process; gives it with its first line of stdout, read. A real one is a child of this process."""
    command = [sys.executable, "-m", "keyhole"] if real else [forked()]
    command += ["server", "--json", "--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", *map(str, args)]
    with child(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            line = process.stdout.readline()
            assert line, f"the server did not start: {process.wait()}"
            yield process, json.loads(line)
        finally:
            process.terminate()
            process.wait(60)
