"""node-vault as it is, against `keyhole server --dev`."""

import json
import subprocess

from cli_driver import environment
from e2e.internet import program_of_node


def test_node_vault_does_its_work(vault):
    done = subprocess.run(
        program_of_node("node_vault.mjs"),
        env=environment(VAULT_ADDR=vault.url, VAULT_TOKEN=vault.token),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {
        "sealed": False,
        "initialized": True,
        "read": {"key": "value", "list": [1, "two"]},
        "patched": {"key": "value", "list": [1, "two"], "other": 1},
        "list": ["a"],
        "deleted": 404,
        "policies": True,
        "plain": {"k": "v"},
        "mounts": True,
        "self": ["default", "node"],
        "denied": 403,
        "revoked": 403,
        "login": ["default", "node"],
        "machine": {"role_name": "node"},
    }
