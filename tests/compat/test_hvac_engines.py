"""``hvac`` uses the engines over a real server: both versions of KV, one-time passwords, SSH, and certificates."""

import subprocess
import time

import pytest
from hvac import exceptions

import database_server
import postgres_server
from engines.database_world import CREATION
from engines.pki_world import openssl, request, verifies
from engines.ssh_world import key_pair


@pytest.fixture
def client(vault):
    return vault.hvac()


@pytest.fixture
def at(client, request):
    """Mounts an engine for one test, and gives its path."""
    made = []

    def mount(kind, **options):
        path = f"{kind}-{len(made)}-{request.node.name.replace('[', '-').rstrip(']')}"
        client.sys.enable_secrets_engine(kind, path=path, options=options or None)
        made.append(path)
        return path

    yield mount
    for path in made:
        client.sys.disable_secrets_engine(path)


def test_kv_without_versions(client, at):
    v1, path = client.secrets.kv.v1, at("kv", version="1")
    assert v1.create_or_update_secret("a/b", {"k": "v"}, mount_point=path).status_code == 204
    assert v1.read_secret("a/b", mount_point=path)["data"] == {"k": "v"}
    assert v1.list_secrets("a", mount_point=path)["data"] == {"keys": ["b"]}
    assert v1.delete_secret("a/b", mount_point=path).status_code == 204
    with pytest.raises(exceptions.InvalidPath):
        v1.read_secret("a/b", mount_point=path)


@pytest.mark.filterwarnings("ignore:The raise_on_deleted_version parameter:DeprecationWarning")
def test_kv_with_versions(client, at):
    v2, path = client.secrets.kv.v2, at("kv", version="2")
    v2.configure(max_versions=7, cas_required=False, delete_version_after="3h", mount_point=path)
    assert v2.read_configuration(mount_point=path)["data"]["delete_version_after"] == "3h0m0s"
    assert v2.create_or_update_secret("x", {"a": 1}, cas=0, mount_point=path)["data"]["version"] == 1
    with pytest.raises(exceptions.InvalidRequest, match="did not match the current version"):
        v2.create_or_update_secret("x", {"a": 2}, cas=-1, mount_point=path)
    assert v2.patch("x", {"b": 2}, mount_point=path)["data"]["version"] == 2
    with pytest.raises(exceptions.InvalidPath, match="patch only works on existing data"):
        v2.patch("none", {"b": 2}, mount_point=path)
    found = v2.read_secret_version("x", mount_point=path, raise_on_deleted_version=True)["data"]
    assert found["data"] == {"a": 1, "b": 2}
    v2.update_metadata("x", max_versions=3, custom_metadata={"team": "red"}, mount_point=path)
    assert v2.read_secret_metadata("x", mount_point=path)["data"]["custom_metadata"] == {"team": "red"}
    v2.delete_latest_version_of_secret("x", mount_point=path)
    with pytest.raises(exceptions.InvalidPath):
        v2.read_secret_version("x", mount_point=path, raise_on_deleted_version=True)
    gone = v2.read_secret_version("x", mount_point=path, raise_on_deleted_version=False)["data"]
    assert gone["metadata"]["deletion_time"]
    v2.undelete_secret_versions("x", [2], mount_point=path)
    v2.destroy_secret_versions("x", [1], mount_point=path)
    assert v2.read_secret_metadata("x", mount_point=path)["data"]["versions"]["1"]["destroyed"] is True
    assert v2.list_secrets("", mount_point=path)["data"]["keys"] == ["x"]
    v2.delete_metadata_and_all_versions("x", mount_point=path)
    with pytest.raises(exceptions.InvalidPath):
        v2.read_secret_metadata("x", mount_point=path)


CURRENT = {"raise_on_deleted_version": True}


def once_it_has_versions(read):
    """What is read once the mount answers again; until then it says that it is being upgraded, and nothing else."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return read()
        except exceptions.InvalidRequest as error:
            if "Upgrading from non-versioned" not in str(error) or time.monotonic() > deadline:
                raise


def test_kv_that_is_given_versions(client, at):
    path = at("kv", version="1")
    for number in range(120):
        client.secrets.kv.v1.create_or_update_secret(f"a/{number}", {"n": number}, mount_point=path)
    client.sys.tune_mount_configuration(path, options={"version": "2"})
    v2 = client.secrets.kv.v2
    found = once_it_has_versions(lambda: v2.read_secret_version("a/119", mount_point=path, **CURRENT)["data"])
    assert (found["data"], found["metadata"]["version"]) == ({"n": 119}, 1)
    assert len(v2.list_secrets("a", mount_point=path)["data"]["keys"]) == 120
    assert v2.create_or_update_secret("a/119", {"n": 0}, cas=1, mount_point=path)["data"]["version"] == 2


def test_one_time_passwords(client, at):
    path = at("totp")
    url = "otpauth://totp/Google:test@example.com?secret=Y64VEVMBTSXCYIWRSHRNDZW62MPGVU2G&issuer=Google"
    assert client.list(f"{path}/keys") is None
    assert client.write_data(f"{path}/keys/given", data={"url": url}).status_code == 204
    made = client.write_data(f"{path}/keys/made", data={"generate": True, "issuer": "Us", "account_name": "ann"})
    assert made["data"]["url"].startswith("otpauth://totp/Us:ann?")
    assert client.read(f"{path}/keys/given")["data"]["account_name"] == "test@example.com"
    assert client.list(f"{path}/keys")["data"]["keys"] == ["given", "made"]
    code = client.read(f"{path}/code/given")["data"]["code"]
    assert client.write_data(f"{path}/code/given", data={"code": code})["data"]["valid"] is True
    with pytest.raises(exceptions.InvalidRequest, match="code already used"):
        client.write_data(f"{path}/code/given", data={"code": code})
    with pytest.raises(exceptions.InvalidRequest, match="unknown key"):
        client.read(f"{path}/code/none")
    client.delete(f"{path}/keys/given")
    assert client.read(f"{path}/keys/given") is None


def test_ssh_passwords(client, at):
    ssh, path = client.secrets.ssh, at("ssh")
    made = ssh.create_role("web", default_user="root", key_type="otp", mount_point=path)
    assert made.status_code == 204
    assert ssh.list_roles(mount_point=path)["data"] == {"key_info": {"web": {"key_type": "otp"}}, "keys": ["web"]}
    assert ssh.configure_zeroaddress_roles(roles="web", mount_point=path).status_code == 204
    assert ssh.list_zeroaddress_roles(mount_point=path)["data"] == {"roles": ["web"]}
    given = ssh.generate_ssh_credentials("web", username="root", ip="1.2.3.4", mount_point=path)
    assert (given["data"]["ip"], bool(given["lease_id"]), given["renewable"]) == ("1.2.3.4", True, False)
    assert ssh.list_roles_by_ip(ip="1.2.3.4", mount_point=path)["data"]["roles"] == ["web"]
    assert ssh.verify_ssh_otp(given["data"]["key"], mount_point=path)["data"]["username"] == "root"
    with pytest.raises(exceptions.InvalidRequest):
        ssh.verify_ssh_otp(given["data"]["key"], mount_point=path)
    assert ssh.delete_zeroaddress_role(mount_point=path).status_code == 204
    assert ssh.delete_role("web", mount_point=path).status_code == 204


def test_ssh_certificates(client, at, tmp_path):
    ssh, path = client.secrets.ssh, at("ssh")
    with pytest.raises(exceptions.InvalidRequest):
        ssh.read_public_key(mount_point=path)
    made = ssh.submit_ca_information(key_type="ssh-rsa", key_bits=2048, mount_point=path)
    assert made["data"]["public_key"].startswith("ssh-rsa ")
    assert ssh.read_public_key(mount_point=path)["data"] == made["data"]
    ssh.create_role("web", default_user="root", key_type="ca", allow_user_certificates=True, mount_point=path)
    _, public = key_pair(tmp_path)
    signed = ssh.sign_ssh_key("web", public_key=public, mount_point=path)["data"]["signed_key"]
    (tmp_path / "x-cert.pub").write_text(signed)
    text = subprocess.check_output(["ssh-keygen", "-L", "-f", tmp_path / "x-cert.pub"], text=True)
    assert "                root\n" in text
    assert ssh.delete_ca_information(mount_point=path).status_code == 204


def test_certificates(client, vault, at, tmp_path):
    pki, path = client.secrets.pki, at("pki")
    root = pki.generate_root("exported", "A root of tests", mount_point=path)["data"]
    assert root["private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    pem = pki.read_ca_certificate(mount_point=path)
    assert pem == root["certificate"] == pki.read_ca_certificate_chain(mount_point=path)
    assert vault.hvac("").secrets.pki.read_ca_certificate(mount_point=path) == pem, "for everybody"
    role = {"allow_any_name": True, "ttl": "6h", "max_ttl": "12h"}
    assert pki.create_or_update_role("web", role, mount_point=path)
    assert pki.list_roles(mount_point=path)["data"]["keys"] == ["web"]
    assert pki.read_role("web", mount_point=path)["data"]["ttl"] == 21600
    made = pki.generate_certificate("web", "test.example.com", mount_point=path)["data"]
    crl = pki.read_crl(mount_point=path)
    assert verifies(tmp_path, made["certificate"], [pem], [], [crl])[0]
    assert made["serial_number"] in pki.list_certificates(mount_point=path)["data"]["keys"]
    assert pki.revoke_certificate(made["serial_number"], mount_point=path)["data"]["revocation_time"]
    crl = pki.read_crl(mount_point=path)
    assert not verifies(tmp_path, made["certificate"], [pem], [], [crl])[0]
    assert pki.read_certificate(made["serial_number"], mount_point=path)["data"]["revocation_time"]
    assert pki.rotate_crl(mount_point=path)["data"]["success"] is True
    assert pki.set_crl_configuration(expiry="72h", disable=False, mount_point=path)
    assert pki.read_crl_configuration(mount_point=path)["data"]["expiry"] == "72h"
    urls = {"issuing_certificates": ["http://127.0.0.1:8200/v1/pki/ca"]}
    assert pki.set_urls(urls, mount_point=path)
    assert pki.read_urls(mount_point=path)["data"]["issuing_certificates"] == urls["issuing_certificates"]
    csr, _ = request(tmp_path, kind=("rsa:2048",))
    assert pki.sign_certificate("web", csr, "other.example.com", mount_point=path)["data"]["certificate"]
    signed = pki.sign_verbatim(csr, "web", mount_point=path)["data"]
    assert "a.example.com" in openssl("x509", "-noout", "-subject", given=signed["certificate"])[1]
    assert pki.tidy(mount_point=path)
    assert pki.delete_role("web", mount_point=path)
    assert pki.delete_root(mount_point=path)


def test_authorities_below_others(client, at):
    pki, above, below = client.secrets.pki, at("pki"), at("pki")
    pki.generate_root("internal", "Above", mount_point=above)
    asked = pki.generate_intermediate("exported", "Below", mount_point=below)["data"]
    signed = pki.sign_intermediate(asked["csr"], "Below", mount_point=above)["data"]
    assert pki.sign_intermediate(asked["csr"], "Below", {"use_csr_values": True}, mount_point=above)["data"]
    assert pki.set_signed_intermediate(signed["certificate"], mount_point=below)
    other = at("pki")
    own = pki.generate_root("exported", "Other", {"ttl": "2000h"}, mount_point=other)["data"]
    assert pki.sign_self_issued(own["certificate"], mount_point=above)["data"]["certificate"]
    bundle = own["private_key"] + "\n" + own["certificate"]
    assert pki.submit_ca_information(bundle, mount_point=at("pki"))


def test_users_of_a_database(client, at):
    path, database = at("database"), client.secrets.database
    more = {"connection_url": database_server.started(), "password": database_server.PASSWORD}
    database_server.reset_root()
    made = {"plugin_name": "postgresql-database-plugin", "allowed_roles": ["r", "s"], "username": database_server.ADMIN}
    database.configure("pg", mount_point=path, **made, **more)
    assert database.list_connections(mount_point=path)["data"]["keys"] == ["pg"]
    read = database.read_connection("pg", mount_point=path)["data"]
    assert read["connection_details"]["username"] == database_server.ADMIN
    assert database_server.PASSWORD not in str(read)
    database.create_role("r", "pg", CREATION, default_ttl="1h", mount_point=path)
    assert database.read_role("r", mount_point=path)["data"]["creation_statements"] == CREATION
    assert database.list_roles(mount_point=path)["data"]["keys"] == ["r"]
    creds = database.generate_credentials("r", mount_point=path)
    name = creds["data"]["username"]
    assert database_server.may_log_in(name, creds["data"]["password"])
    client.write_data("sys/leases/revoke", data={"lease_id": creds["lease_id"], "sync": True})
    assert name not in database_server.users()
    with postgres_server.superuser() as session:
        session.execute("DROP ROLE IF EXISTS app_hvac")
        session.execute("CREATE ROLE app_hvac LOGIN")
    database.create_static_role("s", "pg", "app_hvac", [], rotation_period="24h", mount_point=path)
    before = database.get_static_credentials("s", mount_point=path)["data"]["password"]
    database.rotate_static_role_credentials("s", mount_point=path)
    after = database.get_static_credentials("s", mount_point=path)["data"]["password"]
    assert (database_server.may_log_in("app_hvac", before), database_server.may_log_in("app_hvac", after)) == (
        False,
        True,
    )
    assert database.list_static_roles(mount_point=path)["data"]["keys"] == ["s"]
    assert database.read_static_role("s", mount_point=path)["data"]["username"] == "app_hvac"
    database.rotate_root_credentials("pg", mount_point=path)
    assert not database_server.may_log_in(database_server.ADMIN, database_server.PASSWORD)
    database.reset_connection("pg", mount_point=path)
    database.delete_static_role("s", mount_point=path)
    database.delete_role("r", mount_point=path)
    database.delete_connection("pg", mount_point=path)
    with pytest.raises(exceptions.InvalidPath):
        database.read_connection("pg", mount_point=path)
