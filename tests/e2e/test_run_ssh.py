"""``keyhole run`` lets a command log in to hosts by SSH, git among them, and gives it no key."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engines.ssh_world import Server, key_pair

import nursery

KEYHOLE = Path(sys.executable).with_name("keyhole")
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A vault on this machine whose agent ``default`` may log in to a host with repositories."""
    folder = tmp_path_factory.mktemp("local")
    file, public = key_pair(folder)
    host = Server(folder, "")
    config = host.folder / "config"
    text = config.read_text().replace("AuthorizedKeysFile none", f"AuthorizedKeysFile {host.folder}/authorized")
    config.write_text(f"{text}SetEnv PATH={os.environ['PATH']}\n")
    (host.folder / "authorized").write_text(public)
    with host:
        yield Local(folder, host, file)


class Local:
    def __init__(self, folder, host, key):
        self.folder, self.host, self.private = folder, host, key.read_text()
        self.program = nursery.program(folder)
        (folder / "key").write_bytes(os.urandom(32))
        (folder / "key").chmod(0o600)
        self.env = {
            "PATH": f"{KEYHOLE.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KEYHOLE_SEAL": f"keyfile:{folder / 'key'}",
            "KEYHOLE_RESOLVE": "forge.test:127.0.0.1",
        }
        self("init")
        self("set", "forge/key", input=self.private)
        place, known = f"forge.test:{host.port}", " ".join(host.host_key.split()[:2])
        how = ["--inject", "ssh", "--option", f"user={getpass.getuser()}", "--option", f"host_keys={known}"]
        self("service", "add", "forge", "--scheme", "ssh", "--host", place, "--secret", "forge/key", *how,
             "--allow-address", "127.0.0.1/32")  # fmt: skip
        self("agent", "add", "default")
        self("grant", "default", "forge")

    def __call__(self, *words, code=0, **more):
        done = subprocess.run(
            [self.program, *words], env=self.env, cwd=self.folder, capture_output=True, text=True, check=False, **more
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


def test_git_and_ssh_log_in_through_the_broker_with_a_key_that_the_command_has_not(local):
    bare = local.folder / "project.git"
    subprocess.run([*GIT, "init", "-q", "--bare", bare], check=True)
    script = f"""
        set -e
        ssh -F "$KEYHOLE_SSH_CONFIG" forge echo logged in
        git clone -q forge:{bare} work 2>/dev/null
        cd work; echo text > file; git add file
        {" ".join(GIT)} commit -q -m one
        git push -q origin HEAD:main
        ssh-add -l || true
        cd "$(dirname "$KEYHOLE_SSH_CONFIG")"; ls -A; cat ssh_config known_hosts /proc/self/environ | tr '\\0' '\\n'
    """
    done = local("run", "--", "sh", "-c", script)
    assert done.stdout.startswith("logged in\nThe agent has no identities.\n"), done.stdout + done.stderr
    secret = "".join(local.private.splitlines()[1:-1])
    assert secret[:40] not in done.stdout.replace("\n", "")
    assert "PRIVATE KEY" not in done.stdout
    log = subprocess.run([*GIT, "-C", bare, "log", "--format=%s", "main"], capture_output=True, text=True, check=True)
    assert log.stdout == "one\n"
    records = json.loads(local("audit", "query", "--json").stdout)
    uses = [each for each in records if each.get("method") == "SSH" and each["phase"] == "outcome"]
    assert len(uses) == 3
    assert all(each["result"] == "ok" and each["statements"] == 1 for each in uses)


def test_a_host_without_a_service_is_not_reached(local):
    script = """ssh -F "$KEYHOLE_SSH_CONFIG" -o ProxyCommand="$(sed -n 's/ *ProxyCommand //p' "$KEYHOLE_SSH_CONFIG")" \
        -o StrictHostKeyChecking=no other.test true"""
    done = local("run", "--", "sh", "-c", script, code=255)
    assert "no_service" in done.stderr
