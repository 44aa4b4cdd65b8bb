import contextlib
import subprocess

import hvac
import pytest

from cli_driver import environment, serving


class Server:
    """`keyhole server --dev` as a process, and clients of it."""

    def __init__(self, started):
        self.url = started["api"]
        self.token = started["root_token"]

    def hvac(self, token=None):
        return hvac.Client(url=self.url, token=self.token if token is None else token)

    def sh(self, script, **env):
        """What a script of a shell prints, as people type it; the server's address is in VAULT_ADDR."""
        done = subprocess.run(
            ["/bin/sh", "-euc", script],
            capture_output=True,
            timeout=60,
            check=False,
            env=environment(VAULT_ADDR=self.url, VAULT_TOKEN=self.token, **env),
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def furnish(self):
        """Enable every engine and login method that there is, at its usual path."""
        client = self.hvac()
        catalog = client.read("sys/plugins/catalog")["data"]
        for kind in catalog["secret"]:
            client.sys.enable_secrets_engine(kind)
        for kind in catalog["auth"]:
            client.sys.enable_auth_method(kind)


@contextlib.contextmanager
def server(folder):
    options = ("--dev", "--dev-root-token-id", "root")
    with serving(*options, env=environment(KEYHOLE_HOME=str(folder))) as (_, started):
        yield Server(started)


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    with server(tmp_path_factory.mktemp("home")) as made:
        yield made
