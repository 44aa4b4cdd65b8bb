"""Logins with passwords at the PostgreSQL of the tests, which asks nobody else for one."""

import functools
from pathlib import Path

import psycopg

import postgres_server

ADMIN, PASSWORD = "vaultroot", "first password of root"
URL = "postgresql://{{{{username}}}}:{{{{password}}}}@/vault?host={folder}"


@functools.cache
def started():
    """The URL for a connection. Users whose names begin with v- or app are asked for their passwords."""
    with postgres_server.superuser() as connection:
        connection.execute(f"CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("CREATE TABLE IF NOT EXISTS public.notes (text text)")
        [rules] = connection.execute("SHOW hba_file").fetchone()
        asked = "".join(f"local all {who} scram-sha-256\n" for who in (ADMIN, '"/^v-"', '"/^app"'))
        Path(rules).write_text(asked + Path(rules).read_text())
        connection.execute("SELECT pg_reload_conf()")
    return URL.format(folder=postgres_server.socket_folder())


def reset_root():
    """The login that Keyhole has, as at first."""
    started()
    with postgres_server.superuser() as connection:
        connection.execute(f"ALTER ROLE {ADMIN} PASSWORD '{PASSWORD}'")


def log_in(username, password):
    """A session of a user. Raises ``psycopg.OperationalError``."""
    return psycopg.connect(
        host=postgres_server.socket_folder(), dbname="vault", user=username, password=password, autocommit=True
    )


def may_log_in(username, password):
    try:
        log_in(username, password).close()
    except psycopg.OperationalError:
        return False
    return True


def users(prefix="v-"):
    """Names of the users that begin so."""
    with postgres_server.superuser() as connection:
        found = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (prefix,))
        return {name for (name,) in found}


def valid_until(username):
    """Seconds since the epoch."""
    with postgres_server.superuser() as connection:
        query = "SELECT extract(epoch FROM rolvaliduntil)::float FROM pg_roles WHERE rolname = %s"
        return connection.execute(query, (username,)).fetchone()[0]
