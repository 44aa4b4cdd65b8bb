"""A second Keyhole server, whose transit engine keeps the key."""

import contextlib
import json
import urllib.request

from cli_driver import environment, serving

POLICY = """
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
path "auth/token/renew-self" { capabilities = ["update"] }
"""


class OtherVault:
    """The server: its address, and what is asked of it as root."""

    def __init__(self, url):
        self.url = url

    def ask(self, method, path, body=None, *, token="root"):
        request = urllib.request.Request(  # a loopback address
            f"{self.url}/v1/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"X-Vault-Token": token},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def make_key(self, name):
        self.ask("POST", f"transit/keys/{name}", {})

    def make_token(self, **more):
        """A token that may use keys and nothing else."""
        made = self.ask("POST", "auth/token/create", {"policies": ["seal"], **more})
        return made["auth"]["client_token"]


@contextlib.contextmanager
def other_vault(folder):
    """A server with the keys ``right`` and ``wrong``, and a file with a token for them."""
    env = environment(KEYHOLE_HOME=str(folder / "other"))
    with serving("--dev", "--dev-root-token-id", "root", env=env) as (_, started):
        other = OtherVault(started["api"])
        with contextlib.suppress(urllib.error.HTTPError):  # it may be there already
            other.ask("POST", "sys/mounts/transit", {"type": "transit"})
        other.ask("PUT", "sys/policies/acl/seal", {"policy": POLICY})
        for name in ("right", "wrong"):
            other.make_key(name)
        (folder / "token").write_text(other.make_token() + "\n")
        yield other


def spec_of(other, folder, key="right"):
    """What ``--seal`` takes, without the name."""
    return f"{other.url}/{key}?token-file={folder}/token"
