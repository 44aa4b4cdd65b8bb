"""``keyhole leases``: what was made for a time, seen and ended from the command line."""

import pytest

import database_server
import postgres_server
from cli_driver import ok, run
from keyhole.cli.base import Session
from keyhole.core.errors import UpstreamUnreachable
from keyhole.engines import ssh
from keyhole.vault.leases import new_lease

ROLE = {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "10.0.0.0/8"}

SWEPT = {"revoked": 0, "waiting": 0, "irrevocable": 0, "strays": [], "unseen": []}


def write(path, data):
    """Ask the vault that the commands are about."""
    session = Session()
    session.asks = False
    try:
        return session.client.write(path, data)
    finally:
        session.close()


def one_time_passwords():
    """Makes something that is leased; gives the id of the lease."""
    write("sys/mounts/ssh", {"type": "ssh"})
    write("ssh/roles/ops", ROLE)
    return lambda: write("ssh/creds/ops", {"ip": "10.0.0.7"}).lease_id


@pytest.fixture
def otp(vault):
    return one_time_passwords()


def ids(*more):
    return [entry["id"] for entry in ok("leases", "list", *more, "--json").json]


def test_leases_are_listed_by_path_and_revoked(otp):
    first, second = sorted([otp(), otp()])
    assert ids() == ids("ssh/creds") == ids("/ssh/") == [first, second]
    assert ids("ssh/creds/other") == []
    assert f"{first} " in ok("leases", "list").out
    said = ok("leases", "revoke", first).err
    assert said == f"taken back: {first}\n"
    assert ids() == [second]
    ok("leases", "revoke", "ssh", "--prefix", "--yes")
    assert ids() == []
    assert ok("leases", "list").err == "no leases\n"


def test_a_lease_is_renewed_up_to_its_limit(local, monkeypatch):
    # One-time passwords cannot be renewed; this vault is told otherwise.
    monkeypatch.setattr("keyhole.vault.desk.new_lease", lambda *a, **k: new_lease(*a, **{**k, "renewable": True}))
    lease = one_time_passwords()()
    assert ok("leases", "renew", lease, "--increment", "90m").err == "renewed; it ends in 1h30m\n"
    capped = ok("leases", "renew", lease, "--increment", "10000h")
    assert "exceeded the effective max_ttl" in capped.err
    assert ok("leases", "renew", lease, "--json").json["id"] == lease


def test_what_cannot_be_renewed_says_why(otp):
    ran = run("leases", "renew", otp())
    assert ran.code == 3
    assert "lease is not renewable" in ran.err
    assert run("leases", "renew", "none/such").code == 5
    assert run("leases", "renew", "/").code == 3


def test_what_cannot_be_taken_back_is_said_tried_again_and_forgotten_by_force(local, monkeypatch):
    otp = one_time_passwords()
    lease = otp()

    async def away(_context, _lease):
        raise UpstreamUnreachable("the target does not answer", "is it up?")

    with monkeypatch.context() as broken:
        broken.setattr(ssh, "ENGINE", ssh.ENGINE._replace(revoke=away))
        assert run("leases", "revoke", lease).code == 6
        swept = run("leases", "sweep", "--json")
        assert (swept.code, swept.json) == (1, {**SWEPT, "waiting": 1})
        for _ in range(4):
            run("leases", "sweep")
        assert ok("leases", "list", "--irrevocable", "--json").json == [
            {"id": lease, "attempts": 6, "error": "the target does not answer"}
        ]
        assert "the target does not answer" in ok("leases", "list", "ssh", "--irrevocable").out
        ok("leases", "revoke", lease, "--force", "--yes")
        assert ok("leases", "sweep", "--json").json == SWEPT
        lease = otp()
        assert run("leases", "revoke", lease).code == 6
    assert ok("leases", "sweep").out == "taken back: 1; to be tried again: 0; irrevocable: 0\n"


@pytest.mark.parametrize("where", ["local", "root_of_server"])  # sockets of the machine are for the org root alone
def test_users_that_no_lease_knows_are_shown_and_dropped_after_a_yes(where, request):
    request.getfixturevalue(where)
    write("sys/mounts/database", {"type": "database"})
    login = {"username": database_server.ADMIN, "password": database_server.PASSWORD}
    config = {"plugin_name": "postgresql-database-plugin", "connection_url": database_server.started(), **login}
    template = '{{ printf "v-stray-%s" (random 20) }}'
    database_server.reset_root()
    write("database/config/pg", {**config, "username_template": template})
    with postgres_server.superuser() as session:
        session.execute('CREATE ROLE "v-stray-1" LOGIN')
    found = run("leases", "sweep")
    assert found.code == 1
    assert "no lease knows v-stray-1 at database/pg" in found.out
    assert run("leases", "sweep", "--drop").code == 4
    assert "v-stray-1" in database_server.users()
    dropped = ok("leases", "sweep", "--drop", "--yes")
    assert "no lease knows v-stray-1 at database/pg: dropped" in dropped.out
    assert "v-stray-1" not in database_server.users()
    assert ok("leases", "sweep", "--json").json == SWEPT
