"""``hvac`` and ``curl`` see, renew and end leases, and hand answers on wrapped, over a real server."""

import pytest
from hvac import exceptions

ROLE = {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "10.0.0.0/8"}


@pytest.fixture(scope="module")
def client(vault):
    made = vault.hvac()
    made.sys.enable_secrets_engine("ssh")
    made.write_data("ssh/roles/ops", data=ROLE)
    made.sys.enable_auth_method("approle", path="machines")
    made.write_data("auth/machines/role/web", data={"token_policies": "web"})
    return made


@pytest.fixture
def leased(client):
    return client.write_data("ssh/creds/ops", data={"ip": "10.0.0.7"})


def test_a_lease_is_read_listed_and_revoked(client, leased):
    lease = leased["lease_id"]
    assert leased["lease_duration"] == 2_764_800
    found = client.sys.read_lease(lease)["data"]
    assert found["id"] == lease
    assert found["ttl"] > 2_764_700
    assert "creds/" in client.sys.list_leases("ssh")["data"]["keys"]
    assert lease.rpartition("/")[2] in client.sys.list_leases("ssh/creds/ops")["data"]["keys"]
    assert client.sys.revoke_lease(lease).status_code == 204
    with pytest.raises(exceptions.InvalidRequest, match="invalid lease"):
        client.sys.read_lease(lease)
    with pytest.raises(exceptions.InvalidPath):
        client.sys.list_leases("ssh")


@pytest.mark.parametrize("verb", ["revoke_prefix", "revoke_force"])
def test_a_prefix_may_be_a_whole_lease(client, leased, verb):
    assert getattr(client.sys, verb)(leased["lease_id"]).status_code == 204
    with pytest.raises(exceptions.InvalidRequest, match="invalid lease"):
        client.sys.read_lease(leased["lease_id"])


def test_a_lease_ends_with_the_token_that_asked_for_it(vault, client):
    token = client.auth.token.create(policies=["root"], ttl="1h")["auth"]["client_token"]
    lease = vault.hvac(token).write_data("ssh/creds/ops", data={"ip": "10.0.0.8"})["lease_id"]
    client.sys.read_lease(lease)
    client.auth.token.revoke(token)
    with pytest.raises(exceptions.InvalidRequest, match="invalid lease"):
        client.sys.read_lease(lease)


def test_curl_renews_by_either_form_without_a_body_and_by_one_rule(vault, client, leased):
    client.sys.create_or_update_policy("renewer", 'path "sys/leases/renew" { capabilities = ["update"] } # and below')
    token = client.auth.token.create(policies=["renewer"], no_default_policy=True)["auth"]["client_token"]
    send = 'curl -sS -X PUT -H "X-Vault-Token: $TOKEN" "$VAULT_ADDR/v1/sys/leases/renew'
    answers = [
        vault.sh(f'{send}/$LEASE"', TOKEN=token, LEASE=leased["lease_id"]),
        vault.sh(f'{send}" -d "{{\\"lease_id\\": \\"$LEASE\\"}}"', TOKEN=token, LEASE=leased["lease_id"]),
    ]
    assert answers == ['{"errors":["lease is not renewable"]}'] * 2  # it came to the lease, not to a refusal
    client.sys.create_or_update_policy("renewer", 'path "sys/leases/lookup" { capabilities = ["update"] }')
    refused = vault.sh(f'{send}/$LEASE"', TOKEN=token, LEASE=leased["lease_id"])
    assert "permission denied" in refused


def test_a_wrapped_secret_id_is_unwrapped_by_its_token_or_for_another(vault, client):
    for by in (client, None):
        said = client.write_data("auth/machines/role/web/secret-id", data={}, wrap_ttl="10s")
        info = said["wrap_info"]
        assert (info["ttl"], info["creation_path"]) == (10, "auth/machines/role/web/secret-id")
        opened = (by or vault.hvac(info["token"])).sys.unwrap(info["token"])
        assert set(opened["data"]) >= {"secret_id", "secret_id_accessor"}
        with pytest.raises(exceptions.InvalidRequest, match="wrapping token is not valid or does not exist"):
            client.sys.unwrap(info["token"])


def test_whatever_is_sent_can_be_wrapped(client):
    info = client.sys.wrap({"zip": "zap"}, ttl=60)["wrap_info"]
    assert client.sys.unwrap(info["token"])["data"] == {"zip": "zap"}


def test_a_wrapped_login_gives_its_token_to_who_unwraps(vault, client):
    role = client.read("auth/machines/role/web/role-id")["data"]["role_id"]
    secret = client.write_data("auth/machines/role/web/secret-id", data={})["data"]["secret_id"]
    login = {"role_id": role, "secret_id": secret}
    info = vault.hvac("").write_data("auth/machines/login", data=login, wrap_ttl="1m")["wrap_info"]
    opened = vault.hvac(info["token"]).sys.unwrap()["auth"]
    assert opened["accessor"] == info["wrapped_accessor"]
    assert "web" in vault.hvac(opened["client_token"]).auth.token.lookup_self()["data"]["policies"]
