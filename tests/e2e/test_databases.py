"""A server process over real databases: what clients of its API see of users that live as long as their leases."""

import contextlib
import threading
import time
from types import SimpleNamespace

import psycopg
import pymysql
import pytest
import requests

import database_server
import mariadb_server
import postgres_server
from campaigns.kill_leases import Gone, Server
from cli_driver import environment, serving
from database_gate import Gate
from engines.database_world import CONFIG, CREATION
from engines.test_database_mysql import CREATION as MARIA_CREATION

ROLE = "agent-read-only"
READ = f'path "database/creds/{ROLE}" {{ capabilities = ["read"] }}'
WITHIN = 30.0  # seconds after the end of a lease, on a machine that does other things too


class Api:
    def __init__(self, address):
        self._address = address

    def __call__(self, method, path, body=None, *, token="root"):
        headers = {"X-Vault-Token": token}
        answer = requests.request(method, f"{self._address}/v1/{path}", json=body, headers=headers, timeout=30)
        assert answer.ok, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def creds(self, token="root"):
        """Lease, user name and password."""
        made = self("GET", f"database/creds/{ROLE}", token=token)
        return made["lease_id"], made["data"]["username"], made["data"]["password"]


POSTGRES = SimpleNamespace(
    config=lambda: {**CONFIG, "connection_url": database_server.started()},
    creation=CREATION,
    log_in=database_server.log_in,
    may_log_in=database_server.may_log_in,
    users=database_server.users,
    ask=lambda session: session.execute("SELECT text FROM notes"),
    ended=psycopg.OperationalError,
)
MARIADB = SimpleNamespace(
    config=lambda: {
        "plugin_name": "mariadb-database-plugin",
        "allowed_roles": "*",
        "connection_url": mariadb_server.started(),
        "username": mariadb_server.ADMIN,
        "password": mariadb_server.PASSWORD,
    },
    creation=MARIA_CREATION,
    log_in=mariadb_server.log_in,
    may_log_in=mariadb_server.may_log_in,
    users=mariadb_server.users,
    ask=lambda session: session.query("SELECT note FROM shop.notes"),
    ended=pymysql.OperationalError,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with serving("--dev", "--dev-root-token-id", "root", "--data", home, env=environment(KEYHOLE_HOME=str(home))) as (
        _,
        started,
    ):
        api = Api(started["api"])
        api("POST", "sys/mounts/database", {"type": "database"})
        api("PUT", "sys/policies/acl/agent", {"policy": READ})
        yield api


@pytest.fixture(params=[POSTGRES, MARIADB], ids=["postgresql", "mariadb"])
def kind(request, server):
    database_server.reset_root()
    server("POST", "database/config/shop", request.param.config())
    return request.param


def role(api, kind, **more):
    api("POST", f"database/roles/{ROLE}", {"db_name": "shop", "creation_statements": kind.creation, **more})


def gone(kind, *names, since):
    """All of them, by themselves."""
    while found := set(names) & kind.users():
        assert time.monotonic() < since + WITHIN, found
        time.sleep(0.05)


def test_a_user_works_until_its_lease_ends_and_its_session_ends_with_it(server, kind):
    role(server, kind, default_ttl="3s", max_ttl="1h")
    token = server("POST", "auth/token/create", {"policies": ["agent"]})["auth"]["client_token"]
    asked = time.monotonic()
    _, name, password = server.creds(token)
    session = kind.log_in(name, password)
    kind.ask(session)
    gone(kind, name, since=asked + 3)
    with pytest.raises(kind.ended):
        kind.ask(session)
    assert not kind.may_log_in(name, password)
    with contextlib.suppress(Exception):
        session.close()


def test_a_renewed_user_outlives_others_and_is_revoked(server, kind):
    role(server, kind, default_ttl="3s", max_ttl="1h")
    lease, name, password = server.creds()
    renewed = server("PUT", "sys/leases/renew", {"lease_id": lease, "increment": 600})
    assert renewed["lease_duration"] == 600
    asked = time.monotonic()
    _, other, _ = server.creds()
    gone(kind, other, since=asked + 3)
    assert kind.may_log_in(name, password)
    server("PUT", "sys/leases/revoke", {"lease_id": lease})
    gone(kind, name, since=time.monotonic())
    assert not kind.may_log_in(name, password)


def test_users_end_with_their_prefix_and_with_their_token(server, kind):
    role(server, kind, default_ttl="1h")
    made = [server.creds()[1] for _ in range(3)]
    assert set(made) <= kind.users()
    server("PUT", f"sys/leases/revoke-prefix/database/creds/{ROLE}")
    gone(kind, *made, since=time.monotonic())
    revoked, short = (
        server("POST", "auth/token/create", {"policies": ["agent"], "ttl": ttl})["auth"]["client_token"]
        for ttl in ("1h", "3s")
    )
    asked = time.monotonic()
    _, first, _ = server.creds(revoked)
    _, second, password = server.creds(short)
    assert kind.may_log_in(second, password)
    server("POST", "auth/token/revoke", {"token": revoked})
    gone(kind, first, since=time.monotonic())
    gone(kind, second, since=asked + 3)


def test_the_password_of_a_static_role_is_known_whenever_the_server_is_killed(tmp_path):
    """Killed before the database has taken it, and after that, before the server has heard so."""
    database_server.reset_root()
    with postgres_server.superuser() as session:
        for user in ("app_killed_0", "app_killed_1"):
            session.execute(f"DROP ROLE IF EXISTS {user}")
            session.execute(f"CREATE ROLE {user} LOGIN")
    server, gate = Server(tmp_path), Gate()
    try:
        server.start()
        server.must("POST", "sys/mounts/database", {"type": "database"})
        server.must("POST", "database/config/pg", {**CONFIG, "connection_url": gate.url})
        for number in (0, 1):
            static = {"db_name": "pg", "username": f"app_killed_{number}", "rotation_period": "24h"}
            gate.count = 0
            server.must("POST", f"database/static-roles/{number}", static)
        messages = gate.count
        for number, step, taken in ((0, messages - 4, False), (1, messages - 2, True)):
            before = password_of(server, number)
            gate.hold(step, answer=taken)
            asking = threading.Thread(target=rotate, args=(server, number))
            asking.start()
            assert gate.reached.wait(60)
            server.kill()
            gate.release()
            asking.join()
            server.start()
            assert (password_of(server, number) != before) is taken
    finally:
        server.kill()
        gate.close()


def rotate(server, number):
    with contextlib.suppress(Gone):
        server.ask("POST", f"database/rotate-role/{number}")


def password_of(server, number):
    """It logs in."""
    given = server.must("GET", f"database/static-creds/{number}")["data"]
    assert database_server.may_log_in(given["username"], given["password"])
    return given["password"]
