"""Users of a real MariaDB, made and taken back as those of PostgreSQL."""

import asyncio
import socket

import pymysql
import pytest

import mariadb_server
from engines.database_world import with_database
from keyhole.core.errors import TargetFailed
from vault.world import refusal

CREATION = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON shop.* TO '{{name}}'@'%'"
may_log_in, users = mariadb_server.may_log_in, mariadb_server.users


def with_mariadb(scenario, plugin="mysql-database-plugin"):
    async def wrapped(world):
        await world.config(
            "maria",
            plugin_name=plugin,
            connection_url=mariadb_server.started(),
            username=mariadb_server.ADMIN,
            password=mariadb_server.PASSWORD,
        )
        await world.role("m", db_name="maria", creation_statements=CREATION, default_ttl="1h")
        await scenario(world)

    with_database(wrapped)


@pytest.mark.parametrize("plugin", ["mysql-database-plugin", "mariadb-database-plugin"])
def test_a_user_may_log_in_until_its_lease_is_revoked(plugin):
    async def scenario(world):
        lease, name, password = await world.creds("m")
        assert name.startswith("v-root-m-")
        assert len(name) <= 32
        session = mariadb_server.log_in(name, password)
        with session.cursor() as cursor:
            cursor.execute("SELECT * FROM shop.notes")
        await world.renew(lease)
        await world.revoke(lease)
        with pytest.raises(pymysql.OperationalError), session.cursor() as cursor:
            cursor.execute("SELECT 1")
        session._force_close()
        assert not may_log_in(name, password)
        assert name not in users()
        lease, name, _ = await world.creds("m")
        with mariadb_server.root() as cursor:
            cursor.execute(f"DROP USER '{name}'@'%'")
        await world.revoke(lease)

    with_mariadb(scenario, plugin)


def test_statements_that_fail_leave_no_user_behind():
    async def scenario(world):
        before = users()
        await world.role("bad", db_name="maria", creation_statements=[CREATION, "GRANT SELECT ON no.such TO nobody"])
        assert (await refusal(world.creds("bad"))).status == 500
        await world.sweep()
        assert users() == before
        unquoted = "CREATE USER '{{name}}'@'%' IDENTIFIED {{password}}"
        await world.role("bad", db_name="maria", creation_statements=unquoted)
        reason = (await refusal(world.creds("bad"))).reason
        assert reason.startswith("Error 1064 : You have an error in your SQL syntax")
        assert reason.endswith("the right syntax to use")

    with_mariadb(scenario)


def test_passwords_are_replaced():
    async def scenario(world):
        with mariadb_server.root() as cursor:
            cursor.execute("CREATE OR REPLACE USER 'app'@'%' IDENTIFIED BY 'a first password'")
        await world.write("static-roles/s", db_name="maria", username="app", rotation_period="1h")
        given = await world.read("static-creds/s")
        assert may_log_in("app", given["password"])
        assert not may_log_in("app", "a first password")
        await world.write("rotate-root/maria")
        assert not may_log_in(mariadb_server.ADMIN, mariadb_server.PASSWORD)
        lease, name, password = await world.creds("m")
        assert may_log_in(name, password)
        await world.revoke(lease)

    with_mariadb(scenario)


def test_a_login_that_is_refused_is_said_so():
    async def scenario(world):
        maria = {"plugin_name": "mysql-database-plugin", "connection_url": mariadb_server.started()}
        error = await refusal(world.config("x", **maria, password="wrong"))
        assert "Access denied" in error.reason
        assert "wrong" not in error.reason
        for url in ("root@tcp(h:1", "a:b@tcp(h:1)/?allowAllFiles=true", "a:b@unix(x)/"):
            error = await refusal(world.config("x", **{**maria, "connection_url": url}))
            assert error.code == "invalid_request"

    with_mariadb(scenario)


@pytest.mark.parametrize("way", [b"mysql_clear_password", b"dialog"])
def test_a_server_that_asks_for_the_password_in_clear_does_not_get_it(way, tmp_path):
    place, heard = str(tmp_path / "s"), []

    def packet(number, body):
        return len(body).to_bytes(3, "little") + bytes([number]) + body

    def serve(listener):
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(10)
            capabilities = (0x0008_8208).to_bytes(4, "little")  # protocol 4.1, plugins for logins
            nonce = b"12345678", b"123456789012\0"
            hello = b"\x0a8.0.0\0" + bytes(4) + nonce[0] + b"\0" + capabilities[:2] + b"\x2d\2\0" + capabilities[2:]
            peer.sendall(packet(0, hello + b"\x15" + bytes(10) + nonce[1] + b"mysql_native_password\0"))
            heard.append(peer.recv(4096))
            peer.sendall(packet(2, b"\xfe" + way + b"\0" + b"\2Password: "))
            heard.append(peer.recv(4096))

    async def ask(listener):
        from keyhole.engines.database.plugins import Address, Login, mysql

        serving = asyncio.get_running_loop().run_in_executor(None, serve, listener)
        with pytest.raises(TargetFailed) as caught:
            await mysql.connect(
                {"connection_url": f"{{{{username}}}}:{{{{password}}}}@unix({place})/"},
                Login("keyhole", "correct horse battery"),
                [(Address(place, 3306), "")],
            )
        await serving
        assert "in clear" in caught.value.reason

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        asyncio.run(ask(listener))
    assert b"keyhole" in heard[0]
    assert b"correct horse battery" not in b"".join(heard)
