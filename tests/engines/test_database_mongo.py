"""Users of MongoDB: the real driver, on a stand-in for the server that checks its logins. No MongoDB was asked."""

import json
import ssl

import pymongo
import pytest
import trustme
from pymongo.errors import OperationFailure

import mongo_stand_in
from engines.database_world import with_world
from vault.world import child, refusal

ROLES = '{"db": "admin", "roles": [{"role": "readWrite", "db": "shop"}, "read"]}'
CONFIG = {
    "plugin_name": "mongodb-database-plugin",
    "allowed_roles": "*",
    "username": mongo_stand_in.ADMIN,
    "password": mongo_stand_in.PASSWORD,
}


def with_mongo(scenario, context=None, **config):
    async def wrapped(world):
        with mongo_stand_in.serving(context) as server:
            host = "localhost" if context else "127.0.0.1"
            await world.write("config/mongo", **{"connection_url": server.url(host), **CONFIG, **config})
            await world.role("m", db_name="mongo", creation_statements=ROLES, default_ttl="1h")
            await scenario(world, server)

    with_world(wrapped)


def log_in(server, name, password, source="admin"):
    """A client of a user, which has logged in. Raises ``OperationFailure``."""
    client = pymongo.MongoClient(
        "127.0.0.1", server.port, username=name, password=password, authSource=source, directConnection=True
    )
    try:
        client.shop.notes.insert_one({"text": "x"})
    except BaseException:
        client.close()
        raise
    return client


def may_log_in(server, name, password, source="admin"):
    before = len(server.logins)
    try:
        log_in(server, name, password, source).close()
    except OperationFailure:
        return len(server.logins) > before
    return True


def test_a_user_may_log_in_until_its_lease_is_revoked():
    async def scenario(world, server):
        lease, name, password = await world.creds("m")
        assert name.startswith("v-root-m-")
        assert (lease.ttl, lease.renewable) == (3600, True)
        assert server.users["admin", name].roles == [
            {"role": "readWrite", "db": "shop"},
            {"role": "read", "db": "admin"},
        ]
        with log_in(server, name, password) as client:
            await world.renew(lease)
            await world.revoke(lease)
            with pytest.raises(OperationFailure):
                client.shop.notes.insert_one({"text": "y"})
        assert not may_log_in(server, name, password)
        assert name not in server.names()
        ended = [command["killAllSessions"] for command in server.commands if "killAllSessions" in command]
        assert ended == [[{"user": name, "db": "admin"}]]

    with_mongo(scenario)


def test_a_user_is_dropped_where_it_was_made_and_one_that_is_gone_counts_as_taken_back():
    async def scenario(world, server):
        await world.role("shop", db_name="mongo", creation_statements='{"db": "shop", "roles": ["readWrite"]}')
        lease, name, password = await world.creds("shop")
        assert may_log_in(server, name, password, "shop")
        await world.vault.ask("delete", "database/roles/shop")
        await world.revoke(lease)
        assert name not in server.names()
        lease, name, _ = await world.creds("m")
        del server.users["admin", name]
        await world.revoke(lease)
        gone = await refusal(world.vault.ask("update", "sys/leases/lookup", {"lease_id": lease.id}))
        assert gone.reason == "invalid lease"

    with_mongo(scenario)


def test_a_user_ends_with_its_time_and_its_token():
    async def scenario(world, server):
        token = await child(world.vault, policies=["root"])
        _, first, _ = await world.creds("m", token=token)
        _, second, _ = await world.creds("m")
        await world.vault.ask("update", "auth/token/revoke", {"token": token})
        await world.sweep()
        assert server.names() == {second}
        world.clock.advance(3601)
        await world.sweep()
        assert not server.names()
        assert first.startswith("v-token-m-")

    with_mongo(scenario)


def test_a_password_goes_to_no_journal_and_no_error(monkeypatch):
    known = []

    async def scenario(world, server):
        from keyhole.engines.database import connections as module

        make = module.new_password
        monkeypatch.setattr(module, "new_password", lambda rules=None: known.append(make(rules)) or known[-1])
        said = {"ok": 0.0, "code": 2, "codeName": "BadValue"}

        class Echo(dict):
            def pop(self, name, default=None):
                if name != "createUser" or not known:
                    return default
                return {**said, "errmsg": f"what is {known[-1]}?"}

        server.faults = Echo()
        error = await refusal(world.creds("m"))
        assert (error.status, error.reason) == (500, "(BadValue) what is [password]?")

    with_mongo(scenario)


NO_USER = [
    ([], "empty creation statements"),
    ("CREATE USER x", "no JSON object"),
    ('{"db": "admin"}', "roles array is required"),
    ('{"db": "admin", "roles": []}', "roles array is required"),
    ('{"db": "a.b", "roles": ["read"]}', "no name of a database"),
    ('{"db": "admin", "roles": [{"role": "read", "more": 1}]}', "role and db"),
    ('{"db": "admin", "roles": ["{{password}}"]}', "are names"),
    ('{"db": "admin", "roles": ["read"], "pwd": "mine"}', "has no 'pwd'"),
    (['{"roles": ["read"]}', '{"roles": ["read"]}'], "takes one statement"),
    ('{"db": "admin", "roles": ["no-such-role"]}', "(RoleNotFound) Could not find role: no-such-role@admin"),
]


def test_statements_that_make_no_user_are_refused():
    async def scenario(world, server):
        for statements, said in NO_USER:
            await world.role("bad", db_name="mongo", creation_statements=statements)
            assert said in (await refusal(world.creds("bad"))).reason
        await world.sweep()
        assert not server.names()

    with_mongo(scenario)


def test_what_is_lost_while_a_user_is_made_is_taken_back():
    async def scenario(world, server):
        server.faults["createUser"] = "lost"
        assert (await refusal(world.creds("m"))).code == "target_failed"
        world.clock.advance(31)
        await world.sweep()
        assert not server.names()
        assert [next(iter(command)) for command in server.commands][:2] == ["createUser", "dropUser"]

    with_mongo(scenario)


def test_passwords_of_static_roles_and_our_own_are_replaced():
    async def scenario(world, server):
        server.users["admin", "app"] = mongo_stand_in.User([{"role": "readWrite", "db": "shop"}])
        server.users["admin", "app"].set_password("a first password")
        static = {"db_name": "mongo", "username": "app", "rotation_period": "1h"}
        await world.write("static-roles/s", **static)
        assert not may_log_in(server, "app", "a first password")
        first = await world.read("static-creds/s")
        assert may_log_in(server, "app", first["password"])
        server.faults["updateUser"] = "lost"
        assert (await refusal(world.write("rotate-role/s"))).code == "target_failed"
        world.clock.advance(11)
        await world.sweep()
        second = await world.read("static-creds/s")
        assert second["password"] != first["password"]
        assert may_log_in(server, "app", second["password"])
        await world.write("rotate-root/mongo")
        assert not may_log_in(server, mongo_stand_in.ADMIN, mongo_stand_in.PASSWORD)
        lease, _, _ = await world.creds("m")
        await world.revoke(lease)
        assert not server.names()
        missing = {**static, "username": "nobody"}
        assert "UserNotFound" in (await refusal(world.write("static-roles/none", **missing))).reason

    with_mongo(scenario)


@pytest.mark.parametrize("fault", ["lost", "refused"])
def test_our_own_password_is_not_lost_when_the_answer_is(fault):
    async def scenario(world, server):
        server.faults["updateUser"] = fault
        assert (await refusal(world.write("rotate-root/mongo"))).code == "target_failed"
        replaced = not may_log_in(server, mongo_stand_in.ADMIN, mongo_stand_in.PASSWORD)
        assert replaced is (fault == "lost")
        lease, name, _ = await world.creds("m")
        assert name in server.names()
        await world.revoke(lease)

    with_mongo(scenario)


def test_writes_are_confirmed_as_the_connection_says():
    async def scenario(world, server):
        await world.creds("m")
        assert server.commands[-1]["writeConcern"] == {"w": "majority", "wtimeout": 0}
        await world.write("config/mongo", write_concern='{"wmode": "majority", "wtimeout": 5000, "J": true}')
        await world.creds("m")
        assert server.commands[-1]["writeConcern"] == {"w": "majority", "wtimeout": 5000, "j": True}
        server.faults["createUser"] = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
        assert "not confirmed" in (await refusal(world.creds("m"))).reason
        for wrong in ("[]", '{"fast": true}', '{"wtimeout": "soon"}'):
            assert (await refusal(world.write("config/mongo", write_concern=wrong))).status == 400

    with_mongo(scenario)


def test_a_connection_is_tried_before_it_counts():
    async def scenario(world, server):
        url = server.url()
        error = await refusal(world.write("config/bad", **{**CONFIG, "connection_url": url, "password": "wrong"}))
        what = "error creating database object: error verifying connection: "
        assert (error.status, error.reason) == (400, what + "(AuthenticationFailed) Authentication failed.")
        server.primary = False
        error = await refusal(world.write("config/bad", **{**CONFIG, "connection_url": url}))
        assert error.reason == what + "none of these hosts is the primary"
        with mongo_stand_in.serving() as second:
            several = url.replace(str(server.port), f"{server.port},127.0.0.1:{second.port}")
            await world.write("config/set", **{**CONFIG, "connection_url": several})
            await world.role("set", db_name="set", creation_statements=ROLES)
            await world.creds("set")
            assert len(second.names()) == 1
        with mongo_stand_in.serving() as gone:
            pass
        error = await refusal(world.write("config/bad", **{**CONFIG, "connection_url": gone.url()}))
        assert error.reason == what + "the database cannot be reached"

    with_mongo(scenario)


ELSEWHERE = [
    "mongodb+srv://u:p@cluster.example/",
    "mongodb://u:p@h/?tlsCAFile=/etc/passwd",
    "mongodb://u:p@h/?tlsCertificateKeyFile=/etc/passwd",
    "mongodb://u:p@h/?authMechanism=PLAIN",
    "mongodb://u:p@h/?authMechanism=MONGODB-AWS",
    "mongodb://u:p@h/?proxyHost=evil",
    "mongodb://u:p@h/?tls=maybe",
    "mongodb://u:p@h:99999/",
    "mongodb://u:p@/",
    "mongodb://u:p@h,,i/",
    "postgresql://u:p@h/vault",
]


def test_a_url_that_leads_elsewhere_is_refused():
    async def scenario(world):
        for url in ELSEWHERE:
            error = await refusal(world.write("config/bad", **{**CONFIG, "connection_url": url}))
            assert error.code == "invalid_request", (url, error)
            assert "p@h" not in str(error)

    with_world(scenario)


def test_addresses_of_the_private_network_need_sudo():
    async def scenario(world):
        rules = 'path "database/*" { capabilities = ["create", "update", "read"] }'
        await world.vault.ask("update", "sys/policies/acl/plain", {"policy": rules})
        token = await child(world.vault, policies=["plain"])
        for url in ("mongodb://u:p@127.0.0.1/", "mongodb://u:p@%2Ftmp%2Fmongodb-27017.sock/"):
            error = await refusal(world.write("config/mine", token=token, **{**CONFIG, "connection_url": url}))
            assert error.code == "address_denied"

    with_world(scenario)


def server_context(authority, name, *, ask=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if ask:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def pem(authority):
    return authority.cert_pem.bytes().decode()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def test_a_server_proves_itself_by_the_ca_of_the_connection(authority):
    async def scenario(world, server):
        lease, name, _ = await world.creds("m")
        assert name in server.names()
        await world.revoke(lease)
        url = server.url("localhost")
        what = "error creating database object: error verifying connection: "
        for wrong in ({"tls_ca": pem(trustme.CA())}, {"connection_url": server.url("localhost", "?tls=true")}):
            error = await refusal(world.write("config/other", **{**CONFIG, "connection_url": url, **wrong}))
            assert error.reason.startswith(what + "the "), error.reason
            assert "issuer" in error.reason or "trusted" in error.reason or "self-signed" in error.reason
        by_address = {**CONFIG, "connection_url": server.url("127.0.0.1"), "tls_ca": pem(authority)}
        error = await refusal(world.write("config/other", **by_address))
        assert "is for another" in error.reason
        blind = {**CONFIG, "connection_url": server.url("127.0.0.1", "?tls=true&tlsInsecure=true")}
        await world.write("config/other", **blind)
        error = await refusal(world.write("config/other", **{**CONFIG, "connection_url": url, "tls_ca": "no PEM"}))
        assert error.status == 400

    with_mongo(scenario, server_context(authority, "localhost"), tls_ca=pem(authority))


def test_a_client_certificate_logs_in_by_itself_and_its_key_is_never_shown(authority):
    client = authority.issue_cert(common_name="keyhole")
    chain = client.private_key_and_cert_chain_pem.bytes().decode()

    async def scenario(world, server):
        key = "$external", "CN=keyhole"
        server.users[key] = mongo_stand_in.User([{"role": "root", "db": "admin"}])
        url = server.url("localhost").replace("{{username}}:{{password}}@", "")
        own = {**CONFIG, "connection_url": url, "tls_ca": pem(authority), "username": "", "password": ""}
        await world.write("config/proved", **own, tls_certificate_key=chain)
        await world.role("proved", db_name="proved", creation_statements=ROLES)
        lease, name, _ = await world.creds("proved")
        assert name in server.names()
        assert key in server.logins
        await world.revoke(lease)
        shown = json.dumps(await world.read("config/proved"))
        assert "PRIVATE KEY" not in shown
        assert (await refusal(world.write("config/none", **own))).status == 400
        error = await refusal(world.write("config/none", **own, tls_certificate_key="no PEM"))
        assert error.status == 400

    context = server_context(authority, "localhost", ask=True)
    with_mongo(scenario, context, tls_ca=pem(authority), tls_certificate_key=chain)


def test_names_may_have_100_characters():
    async def scenario(world, server):
        long = "r" * 60
        await world.role(long, db_name="mongo", creation_statements=ROLES)
        _, name, _ = await world.creds(long)
        assert name.startswith("v-root-" + "r" * 15 + "-")
        assert len(name) == len("v-root-") + 15 + 1 + 20 + 1 + 10
        assert name in server.names()

    with_mongo(scenario)


def test_a_user_that_no_lease_knows_is_found_and_dropped_in_whichever_database():
    async def scenario(world, server):
        _, known, _ = await world.creds("m")
        stray, elsewhere = mongo_stand_in.User([]), mongo_stand_in.User([])
        server.users["admin", "v-stray"], server.users["shop", "v-elsewhere"] = stray, elsewhere
        found = (await world.vault.ask("update", "sys/leases/sweep", {"strays": True})).data
        one, two = ({"mount": "database/", "target": "mongo", "name": name} for name in ("v-elsewhere", "v-stray"))
        assert found["strays"] == [{**one, "dropped": False}, {**two, "dropped": False}]
        dropped = (await world.vault.ask("update", "sys/leases/sweep", {"drop": [one]})).data
        assert dropped["strays"] == [{**one, "dropped": True}, {**two, "dropped": False}]
        assert server.names() == {known, "v-stray"}

    with_mongo(scenario)
