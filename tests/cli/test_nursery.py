"""A command that is forked by `nursery` is the command that a user starts."""

import json
import subprocess

import pytest

import nursery
from children import child
from cli_driver import environment

LISTEN = ("--json", "--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return nursery.program(tmp_path_factory.mktemp("bin"))


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("nonsense",), b""),
        (("get", "a/b"), b""),
        (("scrub",), b"key = sk_live_51H8x9yZ2aBcDeFgHiJkLm\n"),
        ((), b""),
    ],
    ids=["mistyped", "no-vault", "stdin", "nothing"],
)
def test_it_says_and_ends_as_the_real_one(program, tmp_path, words, given):
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"))
    real, forked = (
        subprocess.run([start, *words], input=given, env=env, cwd=tmp_path, capture_output=True, check=False)
        for start in (nursery.KEYHOLE, program)
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)
    assert forked.stdout + forked.stderr


def test_it_works_in_its_own_folder_environment_and_umask(program, tmp_path):
    env = environment(HOME=str(tmp_path), KEYHOLE_HOME=str(tmp_path / "kept"))
    words = ["init", "--make-keyfile", "--seal", "keyfile:own.key", "--json"]
    made = subprocess.run([program, *words], env=env, cwd=tmp_path, capture_output=True, check=False, umask=0o077)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["root_token"]
    assert (tmp_path / "own.key").exists()
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize(("signal", "code"), [("terminate", 0), ("kill", -9)])
def test_a_signal_reaches_it(program, tmp_path, signal, code):
    env = environment(KEYHOLE_HOME=str(tmp_path))
    with child([program, "server", "--dev", *LISTEN], env=env, stdout=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["api"]
        getattr(process, signal)()
        process.stdout.read()  # ends when nobody holds the other end any more
        assert process.wait() == code
