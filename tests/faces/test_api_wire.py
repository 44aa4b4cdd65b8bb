"""How a request is read: what Vault's clients send in ways of their own, and what nobody may send."""

import asyncio
import json

import pytest

from faces.api_client import Client, play
from keyhole.config import ApiLimits
from keyhole.core.request import Reply

FORM = (b"content-type", b"application/x-www-form-urlencoded")


class Listener:
    """Stands where the node stands and keeps what comes."""

    def __init__(self):
        self.got = []

    async def handle(self, request):
        self.got.append(request)
        return Reply()

    def open_vault(self):
        return None  # nothing is asked of it for a token of the org root

    def note_refusal(self, error, remote):
        self.refused = error, remote


def read(method, path, **options):
    """The request that comes of it, or the answer that refuses it."""
    told = {name: options.pop(name) for name in ("limits", "trusted", "needs_header") if name in options}
    listener = Listener()
    answer = asyncio.run(Client(listener, **told)(method, path, **options))
    return listener.got[0] if listener.got else answer


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b'{"role_id": "a", "secret_id": "b"}', {"role_id": "a", "secret_id": "b"}),  # as curl -d sends it
        (b'  \n{"a": 1}', {"a": 1}),
        (b"role_id=a&secret_id=b%26c", {"role_id": "a", "secret_id": "b&c"}),
        (b"policies=x&policies=y&note=", {"policies": ["x", "y"], "note": ""}),
        (b"name=J%C3%BCrgen+K", {"name": "J\u00fcrgen K"}),
        (b"", {}),
        (b" \n", {}),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_form_is_read_as_a_form_and_what_begins_like_json_as_json(method, raw, data):
    assert read(method, "x", raw=raw, headers=[FORM]).data == data


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json; charset=utf-8", "APPLICATION/X-WWW-FORM-URLENCODED"]
)
def test_json_is_read_whatever_it_is_called(kind):
    assert read("POST", "x", raw=b'{"a": [1]}', headers=[(b"content-type", kind.encode())]).data == {"a": [1]}


@pytest.mark.parametrize(
    "raw",
    [b"[1]", b'["a"]', b"a=%ff", b"a=%00", b"\xff=1", b"a=1&" * 11, b"{bad json"],
    ids=lambda raw: repr(raw[:9]),
)
def test_a_form_that_is_none_is_a_bad_request(raw):
    answer = read("POST", "x", raw=raw, headers=[FORM], limits=ApiLimits(items=10))
    assert answer.status == 400
    assert answer.json["errors"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "LIST"])
def test_parameters_without_a_body_come_from_the_query(method):
    assert read(method, "x?version=2&v=1&v=2&empty=").data == {"version": "2", "v": ["1", "2"], "empty": ""}
    assert read("POST", "x?version=2", raw=b'{"a": 1}').data == {"a": 1}


@pytest.mark.parametrize("query", ["a=%ff", "a=%00", "%00=a", "a=1&" * 100])
def test_a_query_that_is_no_plain_text_is_a_bad_request(query):
    assert read("GET", f"x?{query}").status == 400


@pytest.mark.parametrize(
    ("query", "operation"),
    [
        ("list=true", "list"),
        ("list=1", "list"),
        ("list=T", "list"),
        ("list=false", "read"),
        ("list=", "read"),
        ("", "read"),
    ],
)
def test_a_listing_is_asked_for_as_go_reads_a_boolean(query, operation):
    request = read("GET", f"x?{query}")
    assert (request.operation, request.data) == (operation, {})
    assert read("DELETE", "x?list=true").operation == "delete"


@pytest.mark.parametrize("value", ["yes", "tRue", "2", "true&list=true"])
def test_a_listing_that_is_neither_asked_for_nor_not_is_a_bad_request(value):
    assert read("GET", f"x?list={value}").status == 400


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("60s", 60), ("5m", 300), ("1h30m", 5400), ("0", 0), ("", 0), (" 7 ", 7)]
)
def test_the_wrap_header_is_a_duration(text, seconds):
    assert read("GET", "x", headers=[(b"x-vault-wrap-ttl", text.encode())]).wrap_ttl == seconds
    assert read("POST", "x", raw=b"{}", headers=[(b"x-vault-wrap-ttl", text.encode())]).wrap_ttl == seconds


@pytest.mark.parametrize("text", ["abc", "-1", "1y", "9" * 400, "1e3", "0x10"])
def test_a_wrap_header_that_is_no_duration_is_a_bad_request(text):
    answer = read("GET", "x", headers=[(b"x-vault-wrap-ttl", text.encode())])
    assert answer.status == 400
    assert answer.json["errors"][0].startswith("error parsing X-Vault-Wrap-TTL header: ")
    assert text not in answer.body.decode()
    twice = [(b"x-vault-wrap-ttl", b"60"), (b"x-vault-wrap-ttl", b"0")]
    assert read("GET", "x", headers=twice).status == 400


@pytest.mark.parametrize(
    ("method", "path", "location"),
    [
        ("GET", "/v1//sys/mounts", "/v1/sys/mounts"),
        ("GET", "//v1/sys/mounts?a=//b", "/v1/sys/mounts?a=//b"),
        ("PUT", "/v1/secret//data///x", "/v1/secret/data/x"),
        ("HEAD", "/v1/x//%3Cscript%3E", "/v1/x/%3Cscript%3E"),
    ],
)
def test_a_double_slash_is_sent_to_the_path_with_one(method, path, location):
    answer = read(method, path, token=None)
    assert (answer.status, answer.headers["location"]) == (301, location)
    assert "<script>" not in answer.body.decode()


@pytest.mark.parametrize("path", ["//evil.example/v1/x", "/\\evil.example//v1/x", "//evil.example", "/healthz//x"])
def test_no_redirect_leads_elsewhere(path):
    assert read("GET", path).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "sys/mounts/", 404),
        ("HEAD", "x/", 404),
        ("DELETE", "x/", 404),
        ("POST", "x/", 400),
        ("PATCH", "x/", 400),
    ],
)
def test_only_a_listing_names_a_folder(method, path, status):
    answer = read(method, path, headers=[(b"content-type", b"application/merge-patch+json")])
    assert answer.status == status
    words = "unsupported path" if status == 404 else "cannot write to a path ending in '/'"
    assert method == "HEAD" or words in answer.json["errors"][0]
    assert read("LIST", path).path == path
    assert read("GET", "sys/internal/ui/mounts/secret/").path == "sys/internal/ui/mounts/secret"


@pytest.mark.parametrize(
    ("sent", "remote"),
    [
        ([], "10.0.0.9"),
        ([b"203.0.113.7"], "203.0.113.7"),
        ([b"1.1.1.1, 203.0.113.7"], "203.0.113.7"),  # the left one is what the client claims
        ([b"1.1.1.1", b"203.0.113.7 , 10.0.0.8"], "203.0.113.7"),
        ([b"10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ([b"2001:db8::1"], "2001:db8::1"),
    ],
)
def test_a_trusted_proxy_says_where_a_request_came_from(sent, remote):
    headers = [(b"x-forwarded-for", value) for value in sent]
    assert read("GET", "x", headers=headers, remote="10.0.0.9", trusted=("10.0.0.0/8",)).remote == remote
    assert read("GET", "x", headers=headers, remote="192.0.2.1", trusted=("10.0.0.0/8",)).remote == "192.0.2.1"
    assert read("GET", "x", headers=headers, remote="10.0.0.9").remote == "10.0.0.9"


@pytest.mark.parametrize("sent", [b"unknown", b"203.0.113.7:80", b"203.0.113.7, ", b","])
def test_an_address_that_is_none_is_a_bad_request_from_a_trusted_proxy(sent):
    headers = [(b"x-forwarded-for", sent)]
    assert read("GET", "x", headers=headers, remote="10.0.0.9", trusted=("10.0.0.9/32",)).status == 400
    assert read("GET", "x", headers=headers, remote="10.0.0.8", trusted=("10.0.0.9/32",)).remote == "10.0.0.8"


def test_a_server_may_require_the_header_that_no_forged_request_has():
    for value, passes in ((b"true", True), (b"false", False), (None, False)):
        headers = [(b"x-vault-request", value)] if value else []
        found = read("GET", "x", headers=headers, needs_header=True)
        assert passes == (getattr(found, "status", 200) == 200)
        assert read("GET", "x", headers=headers).operation == "read"
    assert read("GET", "x", needs_header=True).status == 412


def test_the_state_of_a_server_is_no_matter_of_an_org():
    async def scenario(ask, _vault):
        acme = [(b"x-vault-namespace", b"acme")]
        for method, path in (
            ("GET", "sys/health"),
            ("GET", "sys/seal-status"),
            ("PUT", "sys/unseal"),
            ("PUT", "sys/init"),
        ):
            answer = await ask(method, path, {} if method == "PUT" else None, token=None, headers=acme)
            assert (answer.status, answer.json["errors"]) == (400, ["operation unavailable in namespaces"])
        assert (await ask("GET", "sys/health", token=None, headers=[(b"x-vault-namespace", b"root/")])).status == 200

    play(scenario)


def test_a_body_is_an_object_in_utf8():
    for raw in (b"[]", b"1", b'"x"', b"null", json.dumps({"a": 1}).encode("utf-16")):
        assert read("PUT", "x", raw=raw).json == {"errors": ["error parsing JSON"]}
