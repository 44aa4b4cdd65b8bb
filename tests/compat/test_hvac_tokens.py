"""``hvac`` makes tokens, roles and policies over a real server, and acts with them."""

import json

import pytest
from hvac import exceptions

RULES = {"path": {"secret/data/app/*": {"capabilities": ["create", "read", "update"]}}}


@pytest.fixture
def client(vault):
    return vault.hvac()


def test_a_token_is_looked_up_renewed_and_revoked_by_itself_and_by_others(vault, client):
    made = client.auth.token.create(ttl="1h", renewable=True, policies=["default"])["auth"]
    token, accessor = made["client_token"], made["accessor"]
    own = vault.hvac(token)
    assert own.is_authenticated()
    for found in (own.auth.token.lookup_self(), client.auth.token.lookup(token)):
        assert (found["data"]["id"], found["data"]["accessor"]) == (token, accessor)
    assert client.auth.token.lookup_accessor(accessor)["data"]["id"] == ""
    for renewed in (own.auth.token.renew_self("30m"), client.auth.token.renew(token, "30m")):
        assert (renewed["auth"]["client_token"], renewed["auth"]["lease_duration"]) == (token, 1800)
    assert accessor in client.auth.token.list_accessors()["data"]["keys"]
    assert client.auth.token.revoke_accessor(accessor).status_code == 204
    assert not own.is_authenticated()
    with pytest.raises(exceptions.InvalidRequest):
        client.auth.token.lookup_accessor(accessor)
    with pytest.raises(exceptions.Forbidden):
        client.auth.token.lookup(token)


def test_the_times_of_a_token_are_what_was_asked_for(client):
    capped = client.auth.token.create(ttl="30m", explicit_max_ttl="5m")
    assert capped["auth"]["lease_duration"] == 300
    periodic = client.auth.token.create(period="30m")["auth"]
    assert periodic["lease_duration"] == 1800
    assert client.auth.token.lookup(periodic["client_token"])["data"]["period"] == 1800
    orphan = client.auth.token.create_orphan(ttl="1h", policies=["default"])["auth"]
    assert orphan["orphan"]
    batch = client.auth.token.create(ttl="1h", policies=["default"], type="batch")["auth"]
    assert (batch["token_type"], batch["accessor"], batch["renewable"]) == ("batch", "", False)


def test_token_roles_are_made_used_listed_and_removed(client):
    with pytest.raises(exceptions.InvalidPath):
        client.auth.token.list_roles()
    assert client.auth.token.create_or_update_role("r", allowed_policies="app", orphan=True).status_code == 204
    assert client.auth.token.list_roles()["data"]["keys"] == ["r"]
    assert client.auth.token.read_role("r")["data"]["allowed_policies"] == ["app"]
    made = client.auth.token.create(role_name="r", ttl="1h")["auth"]
    assert (made["policies"], made["orphan"]) == (["app", "default"], True)
    with pytest.raises(exceptions.InvalidRequest, match="must be subset of the role's allowed policies"):
        client.auth.token.create(role_name="r", policies=["other"])
    wrapped = client.auth.token.create(role_name="r", wrap_ttl="15m")
    assert wrapped["auth"] is None
    assert client.sys.unwrap(wrapped["wrap_info"]["token"])["auth"]["policies"] == ["app", "default"]
    client.auth.token.delete_role("r")
    with pytest.raises(exceptions.InvalidPath):
        client.auth.token.list_roles()


def test_a_policy_in_json_or_hcl_is_what_its_tokens_may(vault, client):
    client.sys.create_or_update_acl_policy("app", RULES)
    assert json.loads(client.sys.read_acl_policy("app")["data"]["policy"]) == RULES
    text = 'path "sys/health" { capabilities = ["read", "sudo"]}'
    client.sys.create_or_update_policy("health", text)
    assert client.sys.read_policy("health")["data"] == {"name": "health", "rules": text}
    assert client.sys.read_acl_policy("health")["data"] == {"name": "health", "policy": text}
    assert {"app", "default", "health", "root"} <= set(client.sys.list_acl_policies()["data"]["keys"])
    assert client.sys.list_policies()["data"]["policies"] == client.sys.list_acl_policies()["data"]["keys"]
    own = vault.hvac(client.auth.token.create(policies=["app"])["auth"]["client_token"])
    own.secrets.kv.v2.create_or_update_secret("app/a", {"k": "v"})
    with pytest.raises(exceptions.Forbidden):
        own.secrets.kv.v2.read_secret_version("other", raise_on_deleted_version=True)
    paths = ["secret/data/app/a", "secret/data/other"]
    found = own.sys.get_capabilities(paths)["data"]
    assert [found[path] for path in paths] == [["create", "read", "update"], ["deny"]]
    assert client.sys.get_capabilities(["sys/seal"])["capabilities"] == ["root"]
    client.sys.delete_acl_policy("app")
    with pytest.raises(exceptions.InvalidPath):
        client.sys.read_acl_policy("app")
    with pytest.raises(exceptions.Forbidden):
        own.secrets.kv.v2.read_secret_version("app/a", raise_on_deleted_version=True)
