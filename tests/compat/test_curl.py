"""What people type: curl and jq against `keyhole server --dev`, unchanged."""

import json

LOGIN = """
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/sys/auth/approle" -d '{"type": "approle"}'
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/approle/role/ci" \
    -d '{"token_policies": "ci", "secret_id_ttl": "10m", "token_ttl": "20m"}'
role_id=$(curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/approle/role/ci/role-id" | jq -r .data.role_id)
secret_id=$(curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/approle/role/ci/secret-id" \
    | jq -r .data.secret_id)
curl -sf -X POST "$VAULT_ADDR/v1/auth/approle/login" -d '{"role_id":"'"$role_id"'","secret_id":"'"$secret_id"'"}' \
    | jq -r .auth.client_token
"""

POLICY = """
# What the build may do.
path "secret/data/ci/*" {
  capabilities = ["read"]
}
path "secret/data/ci/root" {
  capabilities = ["deny"] # not this one
}
path "sys/audit*" {
  capabilities = ["deny"]
}
path "sys/leases/renew" {
  capabilities = ["update"]
}
"""

STATUS = """curl -s -o /dev/null -w '%{http_code}' -H "X-Vault-Token: $TOKEN" "$VAULT_ADDR/v1/$ASKED" """


def write_policy(vault):
    vault.sh(
        """printf %s "$POLICY" | jq -Rs '{policy: .}' \
        | curl -sf -X PUT -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/sys/policies/acl/ci" -d @-""",
        POLICY=POLICY,
    )


def test_a_machine_logs_in_by_approle_and_reads_what_its_policy_grants(vault):
    write_policy(vault)
    for name in ("db", "root"):
        vault.sh(
            """curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/secret/data/ci/$NAME" \
            -d '{"data": {"password": "pw"}}'""",
            NAME=name,
        )
    token = vault.sh(LOGIN)
    assert token.startswith("hvs.")
    read = """curl -sf -H "X-Vault-Token: $TOKEN" "$VAULT_ADDR/v1/secret/data/ci/db" | jq -r .data.data.password"""
    assert vault.sh(read, TOKEN=token) == "pw"
    bearer = (
        """curl -sf -H "Authorization: Bearer $TOKEN" "$VAULT_ADDR/v1/secret/data/ci/db" | jq -r .data.data.password"""
    )
    assert vault.sh(bearer, TOKEN=token) == "pw"
    for asked, status in (
        ("secret/data/ci/db", 200),
        ("secret/data/ci/root", 403),
        ("sys/audit", 403),
        ("secret/data/x", 403),
    ):
        assert vault.sh(STATUS, TOKEN=token, ASKED=asked) == str(status), asked
    for asked, status in (("secret/data/ci/none", 404), ("sys/nope", 404), ("secret/data/ci/db", 200)):
        assert vault.sh(STATUS, TOKEN="root", ASKED=asked) == str(status), asked


def test_a_form_of_curl_is_as_good_as_json(vault):
    made = vault.sh(
        """curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/token/create" \
        -d ttl=1h -d policies=a -d policies=b"""
    )
    auth = json.loads(made)["auth"]
    assert (auth["lease_duration"], auth["token_policies"]) == (3600, ["a", "b", "default"])


def test_lists_are_asked_for_by_method_or_query(vault):
    vault.sh("""curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/secret/data/list/a" -d '{"data": {}}'""")
    ask = """curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/secret/metadata/list"""
    by_method, by_query = f"""{ask}" -X LIST | jq -c .data.keys""", f"""{ask}?list=true" | jq -c .data.keys"""
    assert vault.sh(by_method) == vault.sh(by_query) == '["a"]'


def test_curl_follows_a_double_slash(vault):
    assert vault.sh("""curl -sfL "$VAULT_ADDR/v1//sys/health" | jq -r .sealed""") == "false"


def test_help_and_the_openapi_document_are_there(vault):
    assert vault.sh(
        """curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/sys/internal/specs/openapi" | jq -r .openapi"""
    ).startswith("3.")
    assert "PARAMETERS" in vault.sh(
        """curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/token/create?help=1" | jq -r .help"""
    )


RENEWER = """
path "pki/issue/web" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
"""
LEASE = """
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/sys/mounts/ssh" -d '{"type": "ssh"}'
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/ssh/roles/door" \\
    -d '{"key_type": "otp", "default_user": "ann", "cidr_list": "10.0.0.0/8"}'
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/ssh/creds/door" -d ip=10.0.0.5 | jq -r .lease_id
"""


def test_a_lease_is_renewed_with_its_id_in_the_path_or_in_the_body(vault):
    lease = vault.sh(LEASE)
    assert lease.startswith("ssh/creds/door/")
    vault.sh(
        """printf %s "$POLICY" | jq -Rs '{policy: .}' \\
        | curl -sf -X PUT -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/sys/policies/acl/renewer" -d @-""",
        POLICY=RENEWER,
    )
    token = vault.sh(
        """curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/token/create" \\
        -d '{"policies": ["renewer"]}' | jq -r .auth.client_token"""
    )
    for who in (vault.token, token):
        in_path = """curl -s -X PUT -H "X-Vault-Token: $TOKEN" "$VAULT_ADDR/v1/sys/leases/renew/$LEASE" | jq -c ."""
        in_body = """curl -s -X PUT -H "X-Vault-Token: $TOKEN" "$VAULT_ADDR/v1/sys/leases/renew" \\
            -d '{"lease_id": "'"$LEASE"'"}' | jq -c ."""
        for script in (in_path, in_body):
            answer = json.loads(vault.sh(script, TOKEN=who, LEASE=lease))
            # One-time passwords are not renewed; who may not even ask would be told that it is forbidden.
            assert answer.get("lease_id") == lease or answer["errors"] == ["lease is not renewable"], answer


KUBERNETES = """
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/sys/auth/kubernetes" -d '{"type": "kubernetes"}'
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/kubernetes/config" \\
    -d '{"kubernetes_host": "https://kubernetes.default.svc:443", "disable_iss_validation": true}'
curl -sf -X POST -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/kubernetes/role/app" \\
    -d 'bound_service_account_names=app' -d 'bound_service_account_namespaces=prod' -d 'token_policies=ci'
curl -sf -H "X-Vault-Token: $VAULT_TOKEN" "$VAULT_ADDR/v1/auth/kubernetes/config" | jq -r .data.kubernetes_host
"""


def test_kubernetes_auth_is_enabled_and_configured(vault):
    assert vault.sh(KUBERNETES) == "https://kubernetes.default.svc:443"
