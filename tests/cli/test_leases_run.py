"""``keyhole leases run``: a command with a leased credential, against a real server and a real PostgreSQL."""

import signal
import subprocess
import sys

import pytest

from cli_driver import environment, run, spawn
from client.cluster import cluster, until, users

SHOW = "import os; print(os.environ['PGUSER'], 'KEYHOLE_TOKEN' in os.environ, flush=True)"
USER = ["--env", "PGUSER=username"]


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), count=1) as made:
        yield environment(KEYHOLE_ADDR=made.address, KEYHOLE_TOKEN=made.token)


def leased(*words, env, role="long", program=SHOW):
    return spawn(
        "leases", "run", "--source", f"/database/creds/{role}", *words, "--", sys.executable, "-c", program, env=env
    )


def test_a_command_has_it_in_its_environment_and_it_is_gone_afterwards(env):
    ran = leased(*USER, env=env, program=SHOW + "; raise SystemExit(7)")
    assert ran.code == 7
    name, token = ran.out.split()
    assert name.startswith("v-")
    assert token == "False"
    until(lambda: name not in users())


def test_a_file_is_written_for_its_owner_alone_and_removed(env, tmp_path):
    (tmp_path / "template").write_text("user={{username}}\npassword = {{ password }}\n")
    target = tmp_path / "app.ini"
    program = f"import os; p = {str(target)!r}; print(open(p).read(), oct(os.stat(p).st_mode))"
    ran = leased("--file", f"{target}={tmp_path / 'template'}", env=env, program=program)
    assert ran.code == 0
    assert "user=v-" in ran.out
    assert ran.out.rstrip().endswith("0o100600")
    assert not target.exists()


def test_a_command_ends_with_its_credential_or_is_started_again_with_another(env, tmp_path):
    wait = SHOW + "; import time; time.sleep(600)"
    ran = leased(*USER, env=env, role="capped", program=wait)
    assert ran.code == 125
    assert "another credential took the place" in ran.err
    mark = tmp_path / "mark"
    twice = SHOW + f"; import pathlib, time; m = pathlib.Path({str(mark)!r})"
    twice += "\nif m.exists(): raise SystemExit(3)\nm.touch(); time.sleep(600)"
    ran = leased(*USER, "--on-change", "restart", env=env, role="capped", program=twice)
    assert ran.code == 3
    assert len({line.split()[0] for line in ran.out.splitlines()}) == 2


def test_a_signal_reaches_the_command_and_the_credential_is_taken_back(env):
    program = SHOW + "; import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); "
    program += "print('ready', flush=True); time.sleep(600)"
    words = ["leases", "run", "--source", "/database/creds/long", *USER, "--", sys.executable, "-c", program]
    command = [sys.executable, "-m", "keyhole", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        name = process.stdout.readline().split()[0]
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 5
    until(lambda: name not in users())


def test_mistakes_are_said_before_anything_is_leased_or_started(env, tmp_path):
    before = users()
    (tmp_path / "there").write_text("mine")
    for words in ([], ["--env", "PGUSER"], ["--file", f"{tmp_path / 'there'}=x"], ["--file", f"{tmp_path / 'new'}=no"]):
        assert run("leases", "run", "--source", "/x", *words, "--", "true").code == 125
    assert leased("--env", "X=none", env=env).code == 125
    assert (tmp_path / "there").read_text() == "mine"
    missing = spawn("leases", "run", "--source", "/database/creds/long", *USER, "--", "/nowhere", env=env)
    assert missing.code == 127
    until(lambda: users() <= before)
