"""``hvac`` administers identities, and a library for OpenID reads the tokens, over a real server."""

import pytest
import requests
from hvac import exceptions
from joserfc import jwt
from joserfc.jwk import KeySet


@pytest.fixture
def client(vault):
    return vault.hvac()


@pytest.fixture
def accessor(client):
    if "approle/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method("approle")
    return client.sys.list_auth_methods()["data"]["approle/"]["accessor"]


def machine(client, name):
    """A client that has logged in as a role, and its entity."""
    client.sys.create_or_update_policy("ids", 'path "identity/oidc/token/*" { capabilities = ["read"] }')
    client.auth.approle.create_or_update_approle(name, token_policies=["ids"])
    role = client.auth.approle.read_role_id(name)["data"]["role_id"]
    secret = client.auth.approle.generate_secret_id(name)["data"]["secret_id"]
    return client.auth.approle.login(role, secret, use_token=False)["auth"]


def test_entities_aliases_and_groups(client, accessor):
    identity = client.secrets.identity
    made = identity.create_or_update_entity("ann", metadata={"team": "red"}, policies=["app"])["data"]["id"]
    other = identity.create_or_update_entity("bob")["data"]["id"]
    assert identity.update_entity(made, disabled=True).status_code == 204
    assert identity.read_entity_by_name("ann")["data"]["disabled"] is True
    alias = identity.create_or_update_entity_alias("ann@example.com", made, accessor)["data"]["id"]
    assert identity.read_entity_alias(alias)["data"]["mount_path"] == "auth/approle/"
    assert identity.lookup_entity(alias_name="ann@example.com", alias_mount_accessor=accessor)["data"]["id"] == made
    with pytest.raises(exceptions.InvalidRequest, match="invalid mount accessor"):
        identity.update_entity_alias(alias, "x", made, "no such accessor")
    group = identity.create_or_update_group("team", member_entity_ids=[made, other])["data"]["id"]
    assert identity.read_group(group)["data"]["member_entity_ids"] == sorted([made, other])
    with pytest.raises(exceptions.InvalidRequest, match="group type cannot be changed"):
        identity.update_group(group, "team", group_type="external")
    assert identity.merge_entities([other], made).status_code == 204
    assert identity.read_group_by_name("team")["data"]["member_entity_ids"] == [made]
    assert identity.list_entities()["data"]["key_info"][made]["name"] == "ann"
    assert identity.list_entities_by_name(method="GET")["data"]["keys"] == ["ann"]
    outer = identity.create_or_update_group_alias("admins", mount_accessor=accessor)["data"]
    assert identity.lookup_group(alias_id=outer["id"])["data"]["type"] == "external"
    for ended in (identity.delete_entity(made), identity.delete_group_by_name("team"), identity.delete_entity(made)):
        assert ended.status_code == 204
    with pytest.raises(exceptions.InvalidPath):
        identity.list_entity_aliases()


def test_identity_tokens(vault, client, accessor):
    identity = client.secrets.identity
    assert accessor
    identity.create_named_key("main", algorithm="ES256", allowed_client_ids=["*"])
    identity.create_or_update_role("billing", key="main", template='{"who": {{identity.entity.name}}}')
    assert identity.list_named_keys()["data"]["keys"] == ["main"]
    assert identity.read_named_key("main")["data"]["rotation_period"] == 24 * 3600
    auth = machine(client, "billing")
    token = vault.hvac(auth["client_token"]).secrets.identity.generate_signed_id_token("billing")["data"]
    assert identity.introspect_signed_id_token(token["token"], token["client_id"])["active"] is True
    found = requests.get(f"{vault.url}/v1/identity/oidc/.well-known/openid-configuration", timeout=10).json()
    keys = requests.get(found["jwks_uri"], timeout=10).json()
    claims = jwt.decode(token["token"], KeySet.import_key_set(keys), algorithms=["ES256"]).claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == (found["issuer"], auth["entity_id"], token["client_id"])
    assert claims["who"] == identity.read_entity(auth["entity_id"])["data"]["name"]
    assert identity.read_active_public_keys() == keys
    with pytest.raises(exceptions.InvalidRequest, match="referenced by these roles"):
        identity.delete_named_key("main")
