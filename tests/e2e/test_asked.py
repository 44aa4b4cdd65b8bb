"""What a service asks of calls, with real clients in `keyhole run`, and a person in another process."""

import json
import os
import subprocess
import time

from children import child
from e2e.world import GIT, KEYHOLE

LOOPBACK = ("--allow-address", "127.0.0.1/32")


def _git(*words, cwd):
    env = os.environ | {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.test", "GIT_CONFIG_NOSYSTEM": "1"}
    env |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.test"}
    return subprocess.run(["git", *words], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


def test_git_clones_and_fetches_and_cannot_push_where_it_may_only_fetch(world):
    bare = world.folder / "repositories/readonly.git"
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(bare), cwd=world.folder)
    _git("config", "http.receivepack", "true", cwd=bare)
    seed = world.folder / "readonly-seed"
    _git("init", "--quiet", "--initial-branch=main", str(seed), cwd=world.folder)
    _git("commit", "--quiet", "--allow-empty", "-m", "one", cwd=seed)
    _git("push", "--quiet", str(bare), "main", cwd=seed)
    world.keyhole(
        *(
            "service",
            "add",
            "clone",
            "--host",
            f"{GIT}:{world.upstream.port}",
            "--path",
            "/repositories/readonly.git/**",
        ),
        *("--secret", "git/token", "--basic", "--git", "fetch", *LOOPBACK),
    )
    world.keyhole("grant", "coder", "clone")

    world.run("git", "clone", "--quiet", f"https://{GIT}:{world.upstream.port}/repositories/readonly.git", "readonly")
    copy = world.folder / "work/readonly"
    _git("commit", "--quiet", "--allow-empty", "-m", "two", cwd=seed)
    _git("push", "--quiet", str(bare), "main", cwd=seed)
    world.run("git", "-C", "readonly", "fetch", "--quiet", "origin")
    assert _git("rev-parse", "origin/main", cwd=copy) == _git("rev-parse", "main", cwd=seed)

    before = len(world.upstream.seen)
    _git("commit", "--quiet", "--allow-empty", "-m", "three", cwd=copy)
    done = world.run("git", "-C", "readonly", "push", "--quiet", "origin", "HEAD:other", code=None)
    assert done.returncode != 0
    assert b"403" in done.stderr
    assert _git("branch", "--list", "other", cwd=bare) == ""
    assert len(world.upstream.seen) == before, "nothing of the push reached the server"


def test_a_held_call_goes_on_when_a_person_approves_it_in_another_process(world):
    world.keyhole(
        *("service", "add", "asked", "--host", f"{world.base.removeprefix('https://')}", "--path", "/v1/asked"),
        *("--secret", "api/key", "--bearer", "--approve", "POST", "--approval-wait", "1m", *LOOPBACK),
    )
    world.keyhole("grant", "coder", "asked")
    command = [KEYHOLE, "run", "--agent", "coder", "--", "curl", "-sS", "--fail", f"{world.base}/v1/asked", "-d", "a=b"]
    with child(
        command, env=world.env, cwd=world.folder / "work", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        found = []
        end = time.monotonic() + 50
        while not found and time.monotonic() < end and process.poll() is None:
            found = json.loads(world.keyhole("requests", "--json").stdout)
        assert [(each["agent"], each["method"], each["shape"]) for each in found] == [("agent/coder", "POST", ["a"])]
        assert not [seen for seen in world.upstream.seen if seen.path == "/v1/asked"]
        world.keyhole("approve", found[0]["id"])
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    [seen] = [seen for seen in world.upstream.seen if seen.path == "/v1/asked"]
    assert seen.body == b"a=b"
