"""Two tokens of SoftHSM2, a real PKCS #11 module in software: one is ours, the other has a key of the same name."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "918273"


def make_tokens(folder, *labels):
    """Tokens below a folder; the environment that leads to them."""
    assert shutil.which("softhsm2-util"), "the tests of the seal pkcs11 need softhsm2: apt-get install -y softhsm2"
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    env = {"SOFTHSM2_CONF": str(config)}
    for label in labels:
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "564738"]
        subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True, timeout=60)
    (folder / "pin").write_text(PIN + "\n")
    return env


@functools.cache
def tokens():
    """Made once a process: the module looks for its tokens when it is loaded."""
    folder = Path(tempfile.mkdtemp(prefix="keyhole-hsm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(make_tokens(folder, "right", "wrong"))
    return folder


def spec_of(token, folder, label="keyhole", *, pin=True):
    """What ``--seal`` takes, without the name."""
    source = f"&pin-source=file:{folder}/pin" if pin else ""
    return f"token={token};object={label}?module-path={MODULE}{source}"
