"""A private desktop session: a D-Bus of its own with a real gnome-keyring on it, unlocked."""

import os
import shutil
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path

import secretstorage
from jeepney.io.blocking import open_dbus_connection

from children import child

PROGRAMS = ("dbus-daemon", "gnome-keyring-daemon")
INSTALL = "apt-get install -y --no-install-recommends dbus dbus-daemon gnome-keyring libsecret-1-0"
VARIABLES = ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS")

# Without service folders: the bus must not start a second, locked gnome-keyring when the first is slow.
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:dir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@contextmanager
def desktop_session(folder):
    """Environment variables of a session whose files lie below ``folder``; ends its two processes at the end."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    assert not missing, f"the keychain's tests need {', '.join(missing)}; as root: {INSTALL}"
    session = {name: str(folder / name.lower()) for name in VARIABLES[:4]}
    for place in session.values():
        Path(place).mkdir(0o700)
    env = {**os.environ, **session}
    config = folder / "bus.conf"
    config.write_text(BUS)
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as bus:
        try:
            session["DBUS_SESSION_BUS_ADDRESS"] = env["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
            assert session["DBUS_SESSION_BUS_ADDRESS"], "dbus-daemon did not start"
            with _keyring_daemon(env):
                yield session
        finally:
            bus.terminate()


@contextmanager
def _keyring_daemon(env):
    command = ["gnome-keyring-daemon", "--unlock", "--foreground", "--components=secrets"]
    with child(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as daemon:
        try:
            daemon.stdin.write("session-password\n")
            daemon.stdin.close()
            _await_unlocked(env["DBUS_SESSION_BUS_ADDRESS"], daemon)
            yield
        finally:
            daemon.terminate()


def _await_unlocked(address, daemon):
    deadline = time.monotonic() + 60
    while daemon.poll() is None and time.monotonic() < deadline:
        with closing(open_dbus_connection(address)) as connection:
            try:
                if not secretstorage.Collection(connection).is_locked():
                    return
            except secretstorage.SecretStorageException:
                pass
        time.sleep(0.02)
    raise AssertionError("gnome-keyring-daemon did not unlock its default collection")


def lock():
    """The session's default collection is locked; only its user could unlock it again."""
    with closing(secretstorage.dbus_init()) as connection:
        secretstorage.get_default_collection(connection).lock()
