"""A real PostgreSQL on TCP with TLS, as databases elsewhere are: one server a test process, which ends with it.

Its certificate is for ``HOST``, of the authority in ``ca_pem()``. ``md5_user`` is asked for an MD5 password and
``clear_user`` for one in clear, all others for SCRAM, with channel binding under TLS.
"""

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import trustme

HOST = "db.test"
ADMIN, PASSWORD = "admin", "password of the administrator"
APP, APP_PASSWORD = "app", "kh-canary-7Qx2mV9pLz4"
DATABASE = "shop"
SECONDS = 60


@functools.cache
def authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def ca_pem():
    return authority().cert_pem.bytes()


def programs():
    """Where the server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else Path(shutil.which("postgres")).resolve().parent


@functools.cache
def started():
    """The port on 127.0.0.1."""
    folder = Path(tempfile.mkdtemp(prefix="keyhole-sql-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if as_user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    subprocess.run(
        [programs() / "initdb", "-D", data, "-U", "root", "--no-sync", "-A", "trust", "--no-locale", "-E", "UTF8"],
        check=True, capture_output=True, cwd=folder, **as_user,
    )  # fmt: skip
    certificate = authority().issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    (data / "server.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (data / "server.key").write_bytes(certificate.private_key_pem.bytes())
    (data / "server.key").chmod(0o600)
    if as_user:
        shutil.chown(data / "server.key", "postgres")
    (data / "pg_hba.conf").write_text(
        "local all root trust\n"
        "host all md5_user 127.0.0.1/32 md5\n"
        "host all clear_user 127.0.0.1/32 password\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "ssl": "on",
        "fsync": "off", "wal_level": "minimal", "max_wal_senders": 0, "log_min_messages": "fatal",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(
        [programs() / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **as_user
    )
    log.close()
    atexit.register(server.wait)
    atexit.register(server.send_signal, signal.SIGQUIT)  # at once
    until = time.monotonic() + SECONDS
    while True:
        try:
            connection = psycopg.connect(host=str(folder), port=port, user="root", dbname="postgres", autocommit=True)
            break
        except psycopg.OperationalError:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
    with connection:
        connection.execute(f"CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}'")
        connection.execute(f"CREATE ROLE clear_user LOGIN PASSWORD '{APP_PASSWORD}'")
        connection.execute("SET password_encryption = md5")
        connection.execute(f"CREATE ROLE md5_user LOGIN PASSWORD '{APP_PASSWORD}'")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()
    with admin(port) as connection:
        connection.execute("CREATE TABLE notes (id serial PRIMARY KEY, text text)")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC")
    return port


def admin(port=0):
    """A session that may do anything, around Keyhole."""
    return psycopg.connect(
        host="127.0.0.1", port=port or started(), user=ADMIN, password=PASSWORD, dbname=DATABASE, autocommit=True
    )


def sessions(user):
    """How many sessions a user has now."""
    with admin() as connection:
        return connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (user,)).fetchone()[0]
