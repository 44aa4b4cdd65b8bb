"""Which service a call means that names its secrets as AgentSecrets does."""

import pytest

from keyhole.core.service import Service
from keyhole.faces.run.agentsecrets.asked import read
from keyhole.faces.run.agentsecrets.names import choose, known, listing
from keyhole.faces.run.agentsecrets.said import Refused, of_broker
from keyhole.net.http1.grammar import parse_request_head
from keyhole.net.http1.limits import WireLimits

HOST = "api.example.com"


def service(name, secret, kind="bearer", **data):
    how = data.pop("inject", {"kind": kind})
    return Service.from_data(name, {"hosts": [HOST], "secret": secret, "inject": how} | data)


def asked(*lines, url=f"https://{HOST}/v1/x", method="GET", more=()):
    fields = [f"X-AS-Target-URL: {url}", *(f"X-AS-Inject-{line}" for line in lines), *more]
    raw = "\r\n".join([f"{method} /proxy HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()
    return read(parse_request_head(raw, WireLimits()), raw)


def chosen(services, *lines, **wanted):
    return choose(asked(*lines, **wanted), {each.name: each for each in services}, {}).service.name


def refused(services, *lines, **wanted):
    with pytest.raises(Refused) as caught:
        chosen(services, *lines, **wanted)
    return caught.value.status, caught.value.body["error"]


def test_a_variable_wins_over_a_path_and_a_path_over_a_likeness():
    named = service("one", "a/key", variables=["B_KEY"])
    other = service("two", "b/key")
    assert chosen([named, other], "Bearer: B_KEY") == "one"
    assert chosen([named, other], "Bearer: b/key") == "two"
    assert chosen([named, other], "Bearer: b/key#value") == "two"
    assert chosen([other], "Bearer: B_KEY") == "two"
    assert chosen([other], "Bearer: TWO") == "two"


def test_a_name_of_several_secrets_is_ambiguous_and_of_one_secret_is_not():
    services = [service(name, f"{name}/key", variables=["TOKEN"]) for name in ("one", "two")]
    assert refused(services, "Bearer: TOKEN") == (409, "ambiguous_secret")
    assert chosen(services, "Bearer: two/key") == "two"
    same = [service(name, "one/key", variables=["TOKEN"]) for name in ("b", "a")]
    assert chosen(same, "Bearer: TOKEN") == "a"


def test_the_more_specific_service_is_meant():
    services = [
        service("all", "a/key"),
        service("part", "a/key", paths=["/v1/**"]),
        service("get", "a/key", methods=["POST"]),
    ]
    assert chosen(services, "Bearer: A_KEY") == "part"
    assert chosen(services, "Bearer: A_KEY", url=f"https://{HOST}/v2") == "all"
    assert chosen(services, "Bearer: A_KEY", url=f"https://{HOST}/v2", method="POST") == "get"


def test_parameters_that_differ_in_case_are_told_apart_and_a_client_that_folds_case_is_served():
    lower = service("lower", "a/key", inject={"kind": "query", "name": "key"})
    upper = service("upper", "a/key", inject={"kind": "query", "name": "Key"})
    assert chosen([lower, upper], "Query-key: A_KEY") == "lower"
    assert chosen([lower, upper], "Query-Key: A_KEY") == "upper"
    assert chosen([upper], "query-KEY: A_KEY") == "upper"


def test_the_path_to_a_field_of_a_body_may_have_dashes_of_its_own():
    dotted = service("dotted", "a/key", inject={"kind": "body", "field": "auth.api-key"})
    pointer = service("pointer", "a/key", inject={"kind": "body", "field": "/auth/token"})
    assert chosen([dotted, pointer], "Body-auth-api-key: A_KEY") == "dotted"
    assert chosen([dotted, pointer], "Body-auth-token: A_KEY") == "pointer"
    assert refused([dotted], "Body-auth-token: A_KEY") == (403, "injection_not_bound")


def test_hosts_schemes_and_ports_are_all_of_them_bound():
    services = [service("one", "a/key")]
    for url in (f"http://{HOST}/", f"https://{HOST}:8443/", f"https://sub.{HOST}/", "https://other.test/"):
        assert refused(services, "Bearer: A_KEY", url=url) == (403, "domain_not_in_allowlist")
    assert refused([], "Bearer: A_KEY") == (403, "empty_allowlist")
    elsewhere = service("two", "b/key", hosts=["other.test"])
    assert refused([*services, elsewhere], "Bearer: B_KEY") == (403, "domain_not_in_allowlist")


def test_a_placeholder_is_shown_where_a_service_replaces_one():
    shown = service("one", "a/key", inject={"kind": "placeholder", "text": "pl-0123456789", "in": ["header"]})
    call = asked("Header-X-Key: A_KEY")
    assert choose(call, {"one": shown}, {"one": "own-0123456789"}).headers == ((b"X-Key", b"own-0123456789"),)


def test_headers_keep_their_case_and_those_of_the_contract_and_the_connection_go():
    call = asked(
        "Bearer: A_KEY",
        more=(
            "X-Trace-ID: 1",
            "X-AS-Agent-ID: me",
            "X-Keyhole-Service: x",
            "Proxy-Authorization: x",
            "Connection: x-hop",
            "X-Hop: 1",
        ),
    )
    assert call.headers == ((b"X-Trace-ID", b"1"),)
    assert b"X-Trace-ID: 1\r\n" in call.head(b"", absolute=False)


@pytest.mark.parametrize(
    "lines",
    [("Bearer: ",), ("Bearer-x: A",), ("Cookie-a: A",), ("Query: A",), tuple(f"Query-a{n}: A" for n in range(17))],
)
def test_what_is_not_of_the_contract_is_refused(lines):
    with pytest.raises(Refused) as caught:
        asked(*lines)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "url", ["ftp://a.test/", "https://user:pw@a.test/", "https://a.test/#part", "/path", "https://a.test:x/"]
)
def test_a_url_that_has_no_one_meaning_is_refused(url):
    with pytest.raises(Refused) as caught:
        asked("Bearer: A", url=url)
    assert caught.value.status == 400
    assert "pw" not in str(caught.value.body)


def test_refusals_of_the_broker_are_said_in_the_words_of_the_contract():
    def said(code, reason="why", style="bearer", status=403):
        refusal = of_broker(status, {"code": code, "reason": reason, "hint": ""}, HOST, "KEY", style)
        return refusal.status, refusal.body["error"]

    assert said("upstream_unreachable", status=502) == (502, "failed to reach upstream: why")
    assert said("upstream_timeout", status=504) == (502, "failed to reach upstream: why")
    assert said("no_service") == (403, "domain_not_in_allowlist")
    assert said("not_found", status=404)[0] == 502
    assert said("unauthenticated", status=407) == (403, "unauthenticated")
    assert said("approval_required") == (403, "approval_required")
    assert said("rate_limited", status=429) == (429, "rate_limited")


def test_secrets_are_listed_by_their_variables_or_their_path():
    found = [name for name, _ in known([service("one", "a/key"), service("two", "b/key", variables=["TOKEN"])])]
    assert found == ["A_KEY", "TOKEN"]


def test_a_list_says_what_else_a_secret_is_called():
    assert listing([service("one", "a/key", variables=["TOKEN"])]) == [
        {"key": "TOKEN", "domains": [HOST], "names": ["A_KEY", "A_KEY_VALUE", "ONE", "a/key", "a/key#value"]}
    ]


def test_a_request_says_once_where_it_goes_and_how():
    for line in ("X-AS-Target-URL: https://other.example/", "x-as-target-url: https://other.example/"):
        with pytest.raises(Refused) as error:
            asked("Bearer: A", more=[line])
        assert error.value.status == 400
    with pytest.raises(Refused):
        asked("Bearer: A", more=["X-AS-Method: GET", "X-AS-Method: DELETE"])
