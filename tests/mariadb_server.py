"""A real MariaDB for the tests: one server a test process, which ends with it."""

import atexit
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql
import trustme

ADMIN, PASSWORD = "vaultroot", "first password of root"
SECONDS = 60


@functools.cache
def socket_path():
    """Where it listens."""
    folder = Path(tempfile.mkdtemp(prefix="keyhole-mdb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    user = []
    if os.geteuid() == 0:
        user = ["--user=mysql"]
        shutil.chown(folder, "mysql")
        folder.chmod(0o711)
    path = f"PATH={os.environ['PATH']}:/usr/sbin"
    data, place = folder / "data", folder / "s"
    install = ["env", path, "mariadb-install-db", "--no-defaults", *user, f"--datadir={data}", "--skip-test-db"]
    subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
    server = ["env", path, "mariadbd", "--no-defaults", *user, f"--datadir={data}", f"--socket={place}"]
    server += ["--bind-address=127.0.0.1", f"--port={port()}", *_tls(folder)]
    log = (folder / "log").open("wb")
    running = subprocess.Popen(server, stdout=log, stderr=log)
    log.close()
    atexit.register(running.wait)
    atexit.register(running.terminate)
    until = time.monotonic() + SECONDS
    while not _listens(place):
        assert running.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    return str(place)


@functools.cache
def port():
    """Where it listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@functools.cache
def authority():
    """Who signs its certificate, and those of clients that it takes."""
    return trustme.CA()


def _tls(folder):
    server = authority().issue_cert("localhost", "db.test")
    texts = {
        "ca": authority().cert_pem.bytes(),
        "cert": server.cert_chain_pems[0].bytes(),
        "key": server.private_key_pem.bytes(),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
        (folder / name).chmod(0o644)
    return [f"--ssl-{name}={folder / name}" for name in texts]


def _listens(place):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0


@contextlib.contextmanager
def root():
    """A cursor that may do anything."""
    connection = pymysql.connect(unix_socket=socket_path(), user="root", autocommit=True)
    with connection, connection.cursor() as cursor:
        yield cursor


def started():
    """The URL for a connection; our login is as at first."""
    with root() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER '{ADMIN}'@'%' IDENTIFIED BY '{PASSWORD}'")
        cursor.execute(f"GRANT ALL ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION")
        cursor.execute("CREATE DATABASE IF NOT EXISTS shop")
        cursor.execute("CREATE TABLE IF NOT EXISTS shop.notes (note TEXT)")
    return "{{username}}:{{password}}@unix(" + socket_path() + ")/"


def log_in(username, password):
    """A session. Raises ``pymysql.OperationalError``."""
    return pymysql.connect(unix_socket=socket_path(), user=username, password=password)


def may_log_in(username, password):
    try:
        log_in(username, password).close()
    except pymysql.OperationalError:
        return False
    return True


def users(prefix="v-"):
    with root() as cursor:
        cursor.execute("SELECT User FROM mysql.user WHERE User LIKE %s", (f"{prefix}%",))
        return {name for (name,) in cursor.fetchall()}
