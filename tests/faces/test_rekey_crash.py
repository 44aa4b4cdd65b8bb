"""A server that is killed at any step of a rekey: the old shares open the vault, or the new ones, and never neither."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from faces.api_client import Client
from keyhole.stores import open_store
from keyhole.vault.node import Node

STEPS = ("answered", "one new share entered", "before the commit", "after the commit")


async def worker(location, step):
    """Rekey with verification, and die at a step. The new shares go to stdout as they went to their holders."""
    store = await open_store(location)
    node = Node(store)
    ask = Client(node)
    old = json.loads(sys.stdin.read())

    async def put(path, **body):
        answer = await ask("PUT", path, body, token=None)
        assert answer.status == 200, answer.body
        return answer.json

    def die(reached):
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    for key in old:
        await put("sys/unseal", key=key)
    begun = await put("sys/rekey/init", secret_shares=3, secret_threshold=2, require_verification=True)
    for key in old:
        done = await put("sys/rekey/update", key=key, nonce=begun["nonce"])
    print(json.dumps(done["keys"]), flush=True)
    die("answered")
    await put("sys/rekey/verify", key=done["keys"][0], nonce=done["verification_nonce"])
    die("one new share entered")
    commit = store.commit

    async def watched(batch):
        changes = any(put.key == "sys/vault" for put in batch.puts)
        if changes:
            die("before the commit")
        await commit(batch)
        if changes:
            die("after the commit")

    store.commit = watched
    await put("sys/rekey/verify", key=done["keys"][1], nonce=done["verification_nonce"])


async def prepare(location):
    node = Node(await open_store(location, create=True))
    ask = Client(node)
    made = (await ask("PUT", "sys/init", {"secret_shares": 3, "secret_threshold": 2}, token=None)).json
    assert (await ask("POST", "sys/mounts/secret", {"type": "kv-v2"}, token=made["root_token"])).status == 204
    await ask("POST", "secret/data/a", {"data": {"v": "kept"}}, token=made["root_token"])
    assert (await ask("POST", "sys/namespaces/acme", {}, token=made["root_token"])).status == 200
    await node.close()
    return made


async def opened_by(location, keys, token):
    """Whether these shares open the vault; if so, everything in it is there."""
    node = Node(await open_store(location))
    ask = Client(node)
    try:
        for key in keys[:2]:
            answer = await ask("PUT", "sys/unseal", {"key": key}, token=None)
        if answer.status != 200:
            return False
        read = await ask("GET", "secret/data/a", token=token)
        assert read.json["data"]["data"] == {"v": "kept"}
        assert "acme" in str((await ask("LIST", "sys/namespaces", token=token)).json["data"]["keys"])
        await ask("POST", "secret/data/a", {"data": {"v": "kept"}}, token=token)
        return (await ask("GET", "sys/audit-log/verify", token=token)).json["data"]["valid"]
    finally:
        await node.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_dies_while_it_rekeys_leaves_exactly_one_set_of_shares_in_force(tmp_path, step):
    location = f"sqlite:{tmp_path}/vault.db"
    made = asyncio.run(prepare(location))
    run = subprocess.run(
        [sys.executable, __file__, location, step],
        input=json.dumps(made["keys"][:2]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    new = json.loads(run.stdout)
    changed = step == "after the commit"
    assert asyncio.run(opened_by(location, new, made["root_token"])) is changed
    assert asyncio.run(opened_by(location, made["keys"], made["root_token"])) is not changed


if __name__ == "__main__":
    asyncio.run(worker(*sys.argv[1:]))
