"""Databases over the network: real PostgreSQL and MariaDB by TCP, in TLS, with CAs and certificates of a connection."""

import json

import pytest
import trustme

import database_server
import mariadb_server
import tls_front
from engines.database_world import CONFIG, with_world
from engines.test_database_mysql import CREATION
from vault.world import refusal

WRONG = "error creating database object: error verifying connection: "
MARIA = {
    "plugin_name": "mysql-database-plugin",
    "allowed_roles": "*",
    "username": mariadb_server.ADMIN,
    "password": mariadb_server.PASSWORD,
}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def pem(authority):
    return authority.cert_pem.bytes().decode()


def chain(authority):
    return authority.issue_cert(common_name="keyhole").private_key_and_cert_chain_pem.bytes().decode()


async def works(world, may_log_in, **role):
    await world.role("n", **role)
    lease, name, password = await world.creds("n")
    assert may_log_in(name, password)
    await world.revoke(lease)
    assert not may_log_in(name, password)


def with_postgres(scenario, authority, **front):
    async def wrapped(world):
        with tls_front.serving(authority, **front) as (port, seen):

            async def config(host="localhost", more="", **changes):
                url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/vault{more}"
                await world.write("config/pg", **{**CONFIG, "connection_url": url, **changes})

            await scenario(world, config, seen)

    database_server.reset_root()
    with_world(wrapped)


def test_postgresql_by_tcp(authority):
    async def scenario(world, config, seen):
        await config("127.0.0.1", "?sslmode=disable")
        await works(world, database_server.may_log_in)
        assert seen
        assert not tls_front.used_tls(seen)

    with_postgres(scenario, authority)


def test_postgresql_proves_itself_by_the_ca_of_the_connection(authority):
    async def scenario(world, config, seen):
        await config(tls_ca=pem(authority))
        await works(world, database_server.may_log_in)
        assert tls_front.used_tls(seen)
        for wrong in (
            {"tls_ca": pem(trustme.CA())},
            {"host": "127.0.0.1", "tls_ca": pem(authority)},
            {"more": "?sslmode=verify-full&sslrootcert=system", "tls_ca": ""},
        ):
            error = await refusal(config(**wrong))
            assert (error.status, error.reason) == (400, WRONG + "the database does not prove who it is"), wrong
        assert tls_front.used_tls(seen)
        assert (await refusal(config(tls_ca="no certificate"))).status == 400

    with_postgres(scenario, authority)


def test_postgresql_is_shown_a_client_certificate(authority):
    async def scenario(world, config, _seen):
        error = await refusal(config(tls_ca=pem(authority)))
        assert error.reason == WRONG + "the database wants a certificate of ours, or another one"
        await config(tls_ca=pem(authority), tls_certificate_key=chain(authority))
        await works(world, database_server.may_log_in)
        shown = json.dumps(await world.read("config/pg"))
        assert "BEGIN CERTIFICATE" in shown
        assert "PRIVATE" not in shown
        issued = authority.issue_cert(common_name="keyhole")
        certificate = issued.cert_chain_pems[0].bytes().decode()
        apart = {"tls_certificate": certificate, "private_key": issued.private_key_pem.bytes().decode()}
        await config(tls_ca=pem(authority), tls_certificate_key="", **apart)
        assert "PRIVATE" not in json.dumps(await world.read("config/pg"))
        other = {**apart, "private_key": authority.issue_cert("x").private_key_pem.bytes().decode()}
        error = await refusal(config(tls_ca=pem(authority), tls_certificate_key="", **other))
        assert "belong together" in error.hint

    with_postgres(scenario, authority, ask=True)


def with_mariadb(scenario):
    async def wrapped(world):
        mariadb_server.started()

        async def config(host="localhost", more="", **changes):
            url = f"{{{{username}}}}:{{{{password}}}}@tcp({host}:{mariadb_server.port()})/{more}"
            await world.write("config/maria", **{**MARIA, "connection_url": url, **changes})

        await scenario(world, config)

    with_world(wrapped)


def test_mariadb_by_tcp_and_in_tls():
    async def scenario(world, config):
        role = {"db_name": "maria", "creation_statements": CREATION}
        await config("127.0.0.1")
        await works(world, mariadb_server.may_log_in, **role)
        only_tls = f"ALTER USER '{mariadb_server.ADMIN}'@'%' REQUIRE SSL"
        with mariadb_server.root() as cursor:
            cursor.execute(only_tls)
        assert "Access denied" in (await refusal(config("127.0.0.1"))).reason
        ours = pem(mariadb_server.authority())
        await config(tls_ca=ours)
        await works(world, mariadb_server.may_log_in, **role)
        for wrong in (
            {"tls_ca": pem(trustme.CA())},
            {"host": "127.0.0.1", "tls_ca": ours},
            {"more": "?tls=true", "tls_ca": ""},
        ):
            error = await refusal(config(**wrong))
            assert (error.status, error.reason) == (400, WRONG + "the database does not prove who it is"), wrong
        await config("127.0.0.1", tls_ca=ours, tls_server_name="localhost")
        await config("127.0.0.1", tls_ca="", more="?tls=skip-verify", tls_server_name="")
        await config("127.0.0.1", tls_ca="", more="?tls=true", tls_skip_verify=True)

    with_mariadb(scenario)


def test_mariadb_is_shown_a_client_certificate():
    async def scenario(world, config):
        with mariadb_server.root() as cursor:
            cursor.execute(f"ALTER USER '{mariadb_server.ADMIN}'@'%' REQUIRE X509")
        authority = mariadb_server.authority()
        assert "Access denied" in (await refusal(config(tls_ca=pem(authority)))).reason
        await config(tls_ca=pem(authority), tls_certificate_key=chain(authority))
        await works(world, mariadb_server.may_log_in, db_name="maria", creation_statements=CREATION)
        assert "PRIVATE" not in json.dumps(await world.read("config/maria"))

    with_mariadb(scenario)
