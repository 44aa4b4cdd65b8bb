"""hvac as it is, against `keyhole server --dev`: what its users do, area by area."""

import base64

import hvac.exceptions
import pytest

POLICY = """
# Readers of one folder.
path "secret/data/team/*" { capabilities = ["read", "create", "update"] }
path "secret/metadata/team/*" { capabilities = ["read", "list"] }
path "transit/encrypt/app" { capabilities = ["update"] }
"""


@pytest.fixture
def root(vault):
    return vault.hvac()


@pytest.fixture
def reader(vault, root):
    root.sys.create_or_update_policy("reader", POLICY)
    made = root.auth.token.create(policies=["reader"], ttl="1h", meta={"team": "a"}, display_name="ann")
    return vault.hvac(made["auth"]["client_token"])


def mounted(root, kind, path=None, **options):
    path = path or kind
    if f"{path}/" not in root.sys.list_mounted_secrets_engines()["data"]:
        root.sys.enable_secrets_engine(kind, path=path, **options)


def logged_in(root, kind, path=None):
    if f"{path or kind}/" not in root.sys.list_auth_methods()["data"]:
        root.sys.enable_auth_method(kind, path=path)


def test_the_server_says_how_it_is(root):
    assert root.is_authenticated()
    assert root.sys.is_initialized()
    assert not root.sys.is_sealed()
    assert root.sys.read_health_status(method="GET")["version"].startswith("1.14")
    assert root.sys.read_health_status(method="HEAD").status_code == 200
    assert root.seal_status["t"] == root.sys.read_seal_status()["t"]
    assert root.ha_status["ha_enabled"] is False
    assert root.key_status["term"] >= 1


@pytest.mark.filterwarnings("ignore:The raise_on_deleted_version parameter:DeprecationWarning")  # of hvac within hvac
def test_secrets_have_versions(root):
    kv = root.secrets.kv.v2
    assert kv.create_or_update_secret("team/db", {"user": "u", "pw": "p"}, cas=0)["data"]["version"] == 1
    with pytest.raises(hvac.exceptions.InvalidRequest, match="check-and-set"):
        kv.create_or_update_secret("team/db", {"pw": "q"}, cas=0)
    assert kv.patch("team/db", {"pw": "q"})["data"]["version"] == 2
    assert kv.read_secret_version("team/db", raise_on_deleted_version=True)["data"]["data"] == {"user": "u", "pw": "q"}
    assert kv.read_secret_version("team/db", version=1, raise_on_deleted_version=True)["data"]["data"]["pw"] == "p"
    assert kv.list_secrets("team")["data"]["keys"] == ["db"]
    kv.delete_latest_version_of_secret("team/db")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("team/db", raise_on_deleted_version=True)
    gone = kv.read_secret_version("team/db", raise_on_deleted_version=False)
    assert gone["data"]["data"] is None
    assert gone["data"]["metadata"]["deletion_time"]
    kv.undelete_secret_versions("team/db", [2])
    kv.update_metadata("team/db", max_versions=3, cas_required=True, custom_metadata={"owner": "ann"})
    metadata = kv.read_secret_metadata("team/db")["data"]
    assert (metadata["max_versions"], metadata["custom_metadata"]) == (3, {"owner": "ann"})
    kv.destroy_secret_versions("team/db", [1])
    assert kv.read_secret_metadata("team/db")["data"]["versions"]["1"]["destroyed"]
    kv.delete_metadata_and_all_versions("team/db")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_metadata("team/db")
    kv.configure(max_versions=9, cas_required=False)
    assert kv.read_configuration()["data"]["max_versions"] == 9


def test_secrets_without_versions_are_a_mount_of_their_own(root):
    mounted(root, "kv", "plain", options={"version": "1"}, description="old ones")
    kv = root.secrets.kv.v1
    kv.create_or_update_secret("a/b", {"k": "v"}, mount_point="plain")
    assert kv.read_secret("a/b", mount_point="plain")["data"] == {"k": "v"}
    assert kv.list_secrets("a", mount_point="plain")["data"]["keys"] == ["b"]
    kv.delete_secret("a/b", mount_point="plain")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret("a/b", mount_point="plain")
    root.write("plain/c", k="v", ttl="30s")
    assert root.read("plain/c")["data"]["k"] == "v"
    assert root.list("plain")["data"]["keys"] == ["c"]
    root.delete("plain/c")
    assert root.read("plain/c") is None


def test_mounts_are_listed_tuned_moved_and_removed(root):
    mounted(root, "kv", "first", options={"version": "2"}, config={"default_lease_ttl": "1h"})
    shown = root.sys.list_mounted_secrets_engines()
    assert shown["first/"] == shown["data"]["first/"]
    assert shown["first/"]["options"] == {"version": "2"}
    assert root.sys.read_mount_configuration("first")["data"]["default_lease_ttl"] == 3600
    root.sys.tune_mount_configuration("first", max_lease_ttl="2h", description="tuned")
    assert root.sys.read_mount_configuration("first")["data"]["max_lease_ttl"] == 7200
    root.sys.move_backend("first", "second")
    assert "second/" in root.sys.list_mounted_secrets_engines()["data"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="already in use"):
        root.sys.enable_secrets_engine("kv", path="second")
    root.sys.disable_secrets_engine("second")
    assert "second/" not in root.sys.list_mounted_secrets_engines()["data"]


def test_policies_say_what_a_token_may(vault, root, reader):
    assert "reader" in root.sys.list_policies()["data"]["policies"]
    assert "Readers" in root.sys.read_policy("reader")["data"]["rules"]
    assert root.sys.list_acl_policies()["data"]["keys"]
    reader.secrets.kv.v2.create_or_update_secret("team/x", {"a": "1"})
    with pytest.raises(hvac.exceptions.Forbidden):
        reader.secrets.kv.v2.read_secret_version("other", raise_on_deleted_version=True)
    with pytest.raises(hvac.exceptions.Forbidden):
        reader.sys.list_mounted_secrets_engines()
    own = reader.sys.get_capabilities(["secret/data/team/x"])["data"]
    assert own["secret/data/team/x"] == ["create", "read", "update"]
    asked = root.sys.get_capabilities(["secret/data/team/x"], token=reader.token)
    assert asked["capabilities"] == ["create", "read", "update"]
    root.sys.create_or_update_acl_policy("gone", 'path "x" { capabilities = ["read"] }')
    root.sys.delete_policy("gone")
    assert "gone" not in root.sys.list_policies()["data"]["policies"]
    assert root.sys.delete_policy("['no', 'name']").status_code == 204
    with pytest.raises(hvac.exceptions.InvalidPath):
        root.sys.read_policy("['no', 'name']")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid capability"):
        root.sys.create_or_update_policy("bad", 'path "x" { capabilities = ["zap"] }')
    with pytest.raises(hvac.exceptions.Forbidden):
        vault.hvac("hvs.nobody").auth.token.lookup_self()


def test_tokens_are_made_looked_up_renewed_and_revoked(vault, root, reader):
    own = reader.auth.token.lookup_self()["data"]
    assert own["display_name"] == "token-ann"
    assert own["meta"] == {"team": "a"}
    assert own["policies"] == ["default", "reader"]
    assert 0 < reader.auth.token.renew_self(increment="30m")["auth"]["lease_duration"] <= 3600
    assert root.auth.token.lookup(reader.token)["data"]["id"] == reader.token
    assert root.auth.token.lookup_accessor(own["accessor"])["data"]["id"] == ""
    orphan = root.auth.token.create_orphan(policies=["default"], num_uses=5)["auth"]
    assert orphan["orphan"]
    root.auth.token.create_or_update_role("job", allowed_policies=["reader"], orphan=True, token_period="1h")
    assert "job" in root.auth.token.list_roles()["data"]["keys"]
    made = root.auth.token.create(policies=["reader"], role_name="job")["auth"]
    assert made["lease_duration"] == 3600
    with pytest.raises(hvac.exceptions.InvalidRequest):
        root.auth.token.create(policies=["other"], role_name="job")
    root.auth.token.revoke(made["client_token"])
    assert not vault.hvac(made["client_token"]).is_authenticated()
    root.auth.token.revoke_accessor(orphan["accessor"])
    reader.auth.token.revoke_self()
    assert not vault.hvac(reader.token).is_authenticated()


def test_machines_log_in_by_approle(vault, root):
    logged_in(root, "approle")
    role = root.auth.approle
    role.create_or_update_approle("app", token_policies=["reader"], secret_id_num_uses=1, token_ttl="20m")
    role_id = role.read_role_id("app")["data"]["role_id"]
    made = role.generate_secret_id("app", metadata={"host": "a"})["data"]
    client = vault.hvac("")
    auth = client.auth.approle.login(role_id, made["secret_id"])["auth"]
    assert auth["policies"] == ["default", "reader"]
    assert auth["metadata"] == {"role_name": "app", "host": "a"}
    assert client.is_authenticated()
    with pytest.raises(hvac.exceptions.InvalidRequest):
        vault.hvac("").auth.approle.login(role_id, made["secret_id"])
    wrapped = role.generate_secret_id("app", wrap_ttl="60s")["wrap_info"]
    unwrapped = vault.hvac(wrapped["token"]).sys.unwrap()["data"]
    assert vault.hvac("").auth.approle.login(role_id, unwrapped["secret_id"])["auth"]["client_token"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        vault.hvac(wrapped["token"]).sys.unwrap()
    role.delete_role("app")


def test_people_log_in_with_a_password(vault, root):
    logged_in(root, "userpass", "people")
    people = root.auth.userpass
    people.create_or_update_user("ann", "correct horse", policies="reader", mount_point="people")
    assert people.list_user(mount_point="people")["data"]["keys"] == ["ann"]
    client = vault.hvac("")
    client.auth.userpass.login("ann", "correct horse", mount_point="people")
    assert client.lookup_token()["data"]["meta"] == {"username": "ann"}
    people.update_password_on_user("ann", "battery staple", mount_point="people")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid username or password"):
        vault.hvac("").auth.userpass.login("ann", "correct horse", mount_point="people")
    people.delete_user("ann", mount_point="people")
    root.sys.disable_auth_method("people")


def test_data_is_encrypted_and_signed(root):
    mounted(root, "transit")
    transit = root.secrets.transit
    transit.create_key("app")
    plain = base64.b64encode(b"hello").decode()
    sealed = transit.encrypt_data("app", plain)["data"]["ciphertext"]
    assert transit.decrypt_data("app", sealed)["data"]["plaintext"] == plain
    transit.rotate_key("app")
    assert transit.rewrap_data("app", sealed)["data"]["ciphertext"].startswith("vault:v2:")
    transit.create_key("sign", key_type="ed25519")
    signature = transit.sign_data("sign", plain)["data"]["signature"]
    assert transit.verify_signed_data("sign", plain, signature=signature)["data"]["valid"]
    assert transit.list_keys()["data"]["keys"] == ["app", "sign"]
    assert len(base64.b64decode(transit.generate_random_bytes(16)["data"]["random_bytes"])) == 16


def test_an_answer_can_be_wrapped(vault, root):
    root.secrets.kv.v2.create_or_update_secret("wrapped", {"k": "v"})
    wrapped = root.read("secret/data/wrapped", wrap_ttl="60s")["wrap_info"]
    looked = root.sys.wrap({"a": 1}, ttl=30)["wrap_info"]
    assert looked["ttl"] == 30
    assert vault.hvac(wrapped["token"]).sys.unwrap()["data"]["data"] == {"k": "v"}


def test_entities_gather_logins(root):
    identity = root.secrets.identity
    made = identity.create_or_update_entity(name="ann", metadata={"team": "a"})["data"]
    assert identity.read_entity_by_name("ann")["data"]["id"] == made["id"]
    group = identity.create_or_update_group(name="crew", member_entity_ids=[made["id"]])["data"]
    assert identity.read_group(group["id"])["data"]["member_entity_ids"] == [made["id"]]
    identity.delete_group(group["id"])
    identity.delete_entity_by_name("ann")


def test_leases_are_counted_and_revoked_by_prefix(root):
    assert root.sys.revoke_prefix("secret/none").status_code == 204
    with pytest.raises(hvac.exceptions.InvalidRequest):
        root.sys.read_lease("secret/none")


def test_the_generic_calls_carry_lists_and_maps(root):
    root.write_data("secret/data/generic", data={"data": {"list": [1, "two"], "map": {"a": None}}})
    assert root.read("secret/data/generic")["data"]["data"] == {"list": [1, "two"], "map": {"a": None}}
    assert root.read("secret/data/nothing") is None
    assert root.list("secret/metadata/nothing") is None
