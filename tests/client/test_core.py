"""Requests are built and answers are read without any I/O."""

import json

import pytest

from keyhole.client.core import build, parse
from keyhole.core import errors


def test_a_read_carries_token_org_and_query():
    wire = build("read", "secret/data/a b", {"version": 2, "empty": ""}, token="hvs.x", org="acme")
    assert (wire.method, wire.target, wire.body) == ("GET", "/v1/secret/data/a%20b?version=2", None)
    assert wire.headers["X-Vault-Token"] == "hvs.x"
    assert wire.headers["X-Vault-Namespace"] == "acme"
    assert wire.headers["X-Vault-Request"] == "true"


def test_nothing_in_a_path_can_become_a_query_or_another_path():
    assert build("read", "a?b#c%2f", {}).target == "/v1/a%3Fb%23c%252f"
    assert build("list", "agents", {}).target == "/v1/agents?list=true"


def test_a_patch_says_that_it_is_one():
    wire = build("patch", "secret/data/a", {"data": {"b": None}})
    assert wire.method == "PATCH"
    assert wire.headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(wire.body) == {"data": {"b": None}}


def body(**fields):
    return json.dumps(fields).encode()


def test_an_envelope_is_taken_off():
    result = parse(200, {"x-keyhole-request-id": "7"}, body(request_id="7", data={"a": 1}, auth=None, warnings=["w"]))
    assert (result.data, result.auth, result.warnings, result.request_id) == ({"a": 1}, None, ["w"], "7")
    assert parse(204, {}, b"").data == {}
    assert parse(200, {}, body(sealed=True)).data == {"sealed": True}


def test_a_deleted_version_is_described_and_not_found():
    result = parse(404, {}, body(request_id="7", data={"data": None, "metadata": {"version": 1}}))
    assert not result.found
    assert result.data["metadata"] == {"version": 1}


@pytest.mark.parametrize(
    ("status", "headers", "content", "cls"),
    [
        (403, {}, body(errors=["permission denied"]), errors.PolicyDenied),
        (403, {"x-keyhole-error": "unauthenticated"}, body(errors=["permission denied"]), errors.Unauthenticated),
        (403, {"x-keyhole-error": "expired"}, body(errors=[]), errors.Expired),
        (404, {}, body(errors=[]), errors.NotFound),
        (503, {}, body(errors=["Vault is sealed"]), errors.Sealed),
        (429, {}, body(errors=[]), errors.RateLimited),
        (400, {"x-keyhole-error": "of-tomorrow"}, body(errors=["new"]), errors.InvalidRequest),
        (500, {}, body(errors=["x"]), errors.KeyholeError),
        (301, {"location": "https://evil.example"}, b"", errors.Unreachable),
        (200, {}, b"<html>", errors.Unreachable),
        (200, {}, b"[]", errors.Unreachable),
        (502, {}, b"<html>Bad Gateway", errors.Unreachable),
    ],
)
def test_a_refusal_becomes_the_error_that_the_vault_meant(status, headers, content, cls):
    with pytest.raises(errors.KeyholeError) as raised:
        parse(status, headers, content)
    assert type(raised.value) is cls


def test_our_own_routes_say_reason_and_next_step():
    detail = {"code": "no_service", "reason": "nothing matches", "hint": "add one", "request_id": "9"}
    with pytest.raises(errors.NoService) as raised:
        parse(403, {}, body(errors=["…"], error=detail))
    assert (raised.value.reason, raised.value.hint, raised.value.request_id) == ("nothing matches", "add one", "9")


def test_vaults_routes_say_them_in_headers():
    headers = {
        "x-keyhole-error": "policy_denied",
        "x-keyhole-reason": "permission denied: no rule: for this; ask",
        "x-keyhole-hint": "no rule: for this; ask",
        "x-keyhole-request-id": "9",
    }
    with pytest.raises(errors.PolicyDenied) as raised:
        parse(403, headers, body(errors=["1 error occurred:\n\t* permission denied\n\n"]))
    assert (raised.value.reason, raised.value.hint, raised.value.request_id) == (
        "permission denied",
        "no rule: for this; ask",
        "9",
    )


def test_a_list_of_vaults_is_read_as_one_line():
    with pytest.raises(errors.PolicyDenied) as raised:
        parse(403, {}, body(errors=["1 error occurred:\n\t* permission denied\n\n"]))
    assert raised.value.reason == "permission denied"
