"""The HTTP API: Vault's wire format to the letter, and nothing that a hostile client sends ends in a 5xx."""

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from faces.api_client import Client, furnish, play
from keyhole.config import ApiLimits
from keyhole.core.errors import StoreUnavailable
from keyhole.stores import open_store
from keyhole.testing import open_vault
from vault.world import CANARY, agent, journal, mounts_of, stripe

DENIED = "1 error occurred:\n\t* permission denied\n\n"
UNSUPPORTED = "1 error occurred:\n\t* unsupported operation\n\n"
PATHS = Path(__file__).resolve().parents[1] / "data" / "core" / "secret_paths.jsonl"
ENVELOPE = ["auth", "data", "lease_duration", "lease_id", "renewable", "request_id", "warnings", "wrap_info"]


def test_an_answer_has_the_envelope_and_names_its_record():
    async def scenario(ask, vault):
        await stripe(vault)
        answer = await ask("GET", "secret/data/stripe/api-key")
        assert answer.status == 200
        assert sorted(answer.json) == ENVELOPE
        assert answer.json["data"]["data"] == {"value": CANARY}
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-keyhole-request-id"] == answer.json["request_id"]
        assert answer.json["request_id"] in {record.id for _, record in await journal(vault)}
        empty = await ask("POST", "secret/metadata/x", {})
        assert (empty.status, empty.body) == (204, b"")
        assert "content-length" not in empty.headers

    play(scenario)


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "errors"),
    [
        ("GET", "secret/data/none", "root", 404, []),
        ("LIST", "secret/metadata/none", "root", 404, []),
        ("GET", "nomount/x", "root", 404, ["no handler for route 'nomount/x'"]),
        ("GET", "nomount/x", "agent", 403, [DENIED]),
        ("GET", "secret/data/x", "agent", 403, [DENIED]),
        ("GET", "secret/data/x", "wrong", 403, ["permission denied"]),
        ("GET", "secret/data/x", None, 403, ["permission denied"]),
        ("GET", "secret/data/x", "", 403, ["permission denied"]),
        ("LIST", "secret/data/x", "root", 405, [UNSUPPORTED]),
        ("OPTIONS", "secret/data/x", "root", 405, []),
        ("TRACE", "secret/data/x", "root", 405, []),
        ("DELETE", "sys/health", "root", 405, []),
        ("GET", "/v2/x", "root", 404, ["no handler for route"]),
        ("GET", "/", "root", 404, ["no handler for route"]),
        ("POST", "secret/data/x/", "root", 400, ["cannot write to a path ending in '/'"]),
    ],
)
def test_errors_have_vaults_status_and_words(method, path, token, status, errors):
    async def scenario(ask, vault):
        agents = await agent(vault)
        answer = await ask(method, path, token=agents if token == "agent" else token)
        assert (answer.status, answer.json) == (status, {"errors": errors})
        assert answer.headers["x-keyhole-error"]
        assert answer.headers["x-keyhole-request-id"]

    play(scenario)


def test_own_routes_carry_the_machine_readable_error():
    async def scenario(ask, vault):
        token = await agent(vault)
        answer = await ask("GET", "services/none")
        assert answer.status == 404
        assert answer.json["error"]["code"] == "not_found"
        assert answer.json["error"]["hint"]
        assert answer.json["errors"]
        answer = await ask("LIST", "agents", token=token)
        assert (answer.status, answer.json["error"]["code"]) == (403, "policy_denied")
        assert answer.json["error"]["request_id"] == answer.headers["x-keyhole-request-id"]
        assert answer.headers["x-keyhole-error"] == "policy_denied"

    play(scenario)


def test_post_is_put_list_is_a_query_and_head_is_get_without_a_body():
    async def scenario(ask, _vault):
        for method in ("POST", "PUT"):
            assert (await ask(method, "secret/data/a/b", {"data": {"v": method}})).status == 200
        for method, path in (
            ("LIST", "secret/metadata/a"),
            ("GET", "secret/metadata/a?list=true"),
            ("LIST", "secret/metadata/a/"),
        ):
            assert (await ask(method, path)).json["data"] == {"keys": ["b"]}
        got, head = await ask("GET", "secret/data/a/b"), await ask("HEAD", "secret/data/a/b")
        assert (head.status, head.body) == (got.status, b"")
        assert int(head.headers["content-length"]) > 0
        assert (await ask("GET", "secret/data/a/b?version=1")).json["data"]["data"] == {"v": "POST"}

    play(scenario)


def test_patch_needs_its_content_type():
    async def scenario(ask, _vault):
        await ask("POST", "secret/data/x", {"data": {"a": 1}})
        assert (await ask("PATCH", "secret/data/x", {"data": {"b": 2}})).status == 415
        merge = [(b"content-type", b"application/merge-patch+json; charset=utf-8")]
        assert (await ask("PATCH", "secret/data/x", {"data": {"b": 2}}, headers=merge)).status == 200
        assert (await ask("GET", "secret/data/x")).json["data"]["data"] == {"a": 1, "b": 2}

    play(scenario)


def test_the_namespace_header_must_be_the_tokens_own_org():
    async def scenario(ask, _vault):
        acme = (await ask("POST", "sys/namespaces/acme", {})).json["data"]["root_token"]
        for name, token, status in (
            (b"acme", acme, 404),
            (b"acme/", acme, 404),
            (b"/acme/", acme, 404),
            (b"root", "root", 404),
            (b"acme", "root", 403),
            (b"other", acme, 403),
            (b"acme/x", acme, 403),
        ):
            answer = await ask("GET", "secret/data/x", token=token, headers=[(b"x-vault-namespace", name)])
            assert answer.status == status, (name, answer.body)

    play(scenario)


def test_a_bearer_token_counts_and_doubled_headers_are_refused():
    async def scenario(ask, _vault):
        bearer = [(b"authorization", b"Bearer root")]
        assert (await ask("GET", "auth/token/lookup-self", token=None, headers=bearer)).status == 200
        assert (await ask("GET", "auth/token/lookup-self", token="none", headers=bearer)).status == 403
        for name in (b"x-vault-token", b"X-Vault-Token"):
            assert (await ask("GET", "auth/token/lookup-self", headers=[(name, b"root")])).status == 400
        namespaces = [(b"x-vault-namespace", b"root"), (b"x-vault-namespace", b"acme")]
        assert (await ask("GET", "auth/token/lookup-self", headers=namespaces)).status == 400
        assert (
            await ask("GET", "auth/token/lookup-self", token=None, headers=[(b"authorization", b"Basic root")])
        ).status == 403

    play(scenario)


BAD_JSON = {
    "array": b"[]",
    "text": b'"x"',
    "number": b"1",
    "null": b"null",
    "cut": b'{"data": {',
    "duplicate": b'{"data": {"a": 1}, "data": {}}',
    "duplicate inside": b'{"data": {"a": 1, "a": 2}}',
    "duplicate escaped": b'{"data": {}, "d\\u0061ta": {}}',
    "nan": b'{"data": {"a": NaN}}',
    "infinity": b'{"data": {"a": -Infinity}}',
    "huge float": b'{"data": {"a": 1e999}}',
    "huge integer": b'{"data": {"a": ' + b"9" * 5000 + b"}}",
    "deep": b'{"data": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep arrays": b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "open": b"[" * 1_000_000,
    "wide": b'{"data": {"a": [' + b"1," * 300_000 + b"1]}}",
    "nul": b'{"data": {"a": "\\u0000"}}',
    "surrogate": b'{"data": {"a": "\\ud800"}}',
    "surrogate name": b'{"data": {"\\udfff": 1}}',
    "utf-16": '{"data": {}}'.encode("utf-16"),
    "latin-1": b'{"data": {"a": "\xe9"}}',
    "bom": b'\xef\xbb\xbf{"data": {}}',
    "comment": b'{"data": {} /* x */}',
    "trailing": b'{"data": {}} x',
    "two": b'{"data": {}}{"data": {}}',
    "form": b"data=x",
    "control": b'{"data": {"a": "\n"}}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_could_be_read_in_two_ways_is_a_bad_request(name):
    async def scenario(ask, vault):
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = await ask("POST", "secret/data/x", raw=BAD_JSON[name])
        assert answer.status == 400
        assert answer.json["errors"] == ["error parsing JSON"]
        assert loop.time() - started < 5
        assert (await ask("GET", "secret/data/x")).status == 404

    play(scenario)


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    async def scenario(ask, _vault):
        assert (await ask("POST", "secret/data/x", raw=b" " * 300_000)).status == 413
        big = {"data": {"a": "x" * 900}}
        assert (await ask("POST", "secret/data/x", big)).status == 200
        assert (await ask("POST", "sys/unseal", raw=b" " * 300_000, token=None)).status == 413

    play(scenario, limits=ApiLimits(body=200_000))


def test_a_value_comes_back_as_it_was_sent():
    values = {
        "text": "ä\u2028\U0001f511",
        "n": 12345678901234567890,
        "f": 0.1,
        "t": True,
        "z": None,
        "l": [1, {"a": []}],
        "": "",
    }

    async def scenario(ask, _vault):
        await ask("POST", "secret/data/x", {"data": values})
        assert (await ask("GET", "secret/data/x")).json["data"]["data"] == values

    play(scenario)


@pytest.mark.parametrize("case", [json.loads(line) for line in PATHS.read_text().splitlines()], ids=lambda c: c["id"])
def test_a_spelling_of_a_path_has_one_meaning_or_none(case):
    async def scenario(ask, vault):
        path = case["path"]
        spellings = {quote(path, safe="/"), quote(path, safe=""), quote(path, safe="/;~$=+{}*")}
        for spelling in spellings:
            answer = await ask("POST", f"/v1/secret/data/{spelling}", {"data": {"value": path}})
            assert answer.status in {200, 301, 400, 404, 405}, (spelling, answer.body)
            assert answer.status != 301 or "//" not in answer.headers["location"]
        storage = vault.vault.storage(vault.vault.root_org, "kv")
        stored = await storage.list("k", recursive=True)
        assert stored in ([], [path]), stored
        records = {record.path for _, record in await journal(vault) if record.secrets and record.result == "ok"}
        assert records in (set(), {f"secret/data/{path}"})
        policies = await vault.vault.storage(vault.vault.root_org, "policies", configures=True).list()
        assert policies == []

    play(scenario)


@pytest.mark.parametrize(
    "path",
    [
        "secret/data/%",
        "secret/data/%zz",
        "secret/data/%ff",
        "secret/data/a%252fb",
        "secret/data/a%00b",
        "secret/data/a%5cb",
    ],
)
def test_a_path_that_is_no_plain_text_is_a_bad_request(path):
    async def scenario(ask, _vault):
        assert (await ask("GET", f"/v1/{path}")).status == 400

    play(scenario)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"127.0.0.1:8200")], 200),
        ([(b"host", b"localhost:8200")], 200),
        ([(b"host", b"localhost")], 200),
        ([(b"host", b"[::1]:8200")], 200),
        ([(b"host", b"evil.example:8200")], 403),
        ([(b"host", b"127.0.0.1.evil.example:8200")], 403),
        ([(b"host", b"evil.example")], 403),
        ([(b"host", b"")], 403),
        ([(b"host", b"localhost:8200"), (b"origin", b"http://localhost:8200")], 200),
        ([(b"host", b"localhost:8200"), (b"origin", b"http://localhost")], 200),
        ([(b"host", b"localhost:8200"), (b"origin", b"https://evil.example")], 403),
        ([(b"host", b"localhost:8200"), (b"origin", b"http://evil.example:8200")], 403),
        ([(b"host", b"localhost:8200"), (b"origin", b"null")], 403),
        ([(b"host", b"localhost:8200"), (b"host", b"evil.example")], 400),
    ],
)
def test_a_page_in_a_browser_does_not_reach_the_loopback_api(headers, status):
    async def scenario(ask, _vault):
        for method, path in (("GET", "auth/token/lookup-self"), ("GET", "sys/health"), ("GET", "/readyz")):
            assert (await ask(method, path, headers=headers)).status == status

    play(scenario, hosts=frozenset({"127.0.0.1", "localhost", "::1"}))


def test_health_and_readiness_tell_sealed_and_broken_from_well():
    async def scenario(ask, vault):
        assert (await ask("GET", "/healthz", token=None)).status == 200
        assert (await ask("GET", "/readyz", token=None)).status == 200
        assert (await ask("GET", "sys/health", token=None)).status == 200
        assert b"keyhole_sealed 0" in (await ask("GET", "/metrics", token=None)).body
        await vault.node.seal()
        assert (await ask("GET", "/healthz", token=None)).status == 200
        ready = await ask("GET", "/readyz", token=None)
        assert (ready.status, ready.json["error"]["code"]) == (503, "sealed")
        health = await ask("GET", "sys/health", token=None)
        assert (health.status, health.json["sealed"]) == (503, True)
        assert (await ask("GET", "sys/health?sealedcode=204", token=None)).status == 204
        answer = await ask("GET", "secret/data/x")
        assert (answer.status, answer.json) == (503, {"errors": ["Vault is sealed"]})
        assert (await ask("GET", "sys/seal-status", token=None)).json["sealed"] is True

    play(scenario)


def test_not_ready_is_who_cannot_write():
    class Broken:
        fault = None

        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def commit(self, batch):
            if self.fault:
                raise self.fault
            await self._store.commit(batch)

    async def main():
        store = Broken(await open_store("memory:", create=True))
        async with open_vault(store=store) as vault:
            ask = Client(vault.node)
            store.fault = StoreUnavailable("the disk of the store is full", "free some space")
            assert (await ask("GET", "/readyz")).status == 503
            answer = await ask("GET", "secret/data/x")
            assert (answer.status, answer.headers["x-keyhole-error"]) == (503, "audit_unavailable")
            assert len(answer.json["errors"]) == 1
            store.fault = None
            assert (await ask("GET", "/readyz")).status == 200
            assert (await ask("GET", "secret/data/x")).status == 404

    asyncio.run(main())


def test_sealing_over_the_api_answers_first():
    async def scenario(ask, vault):
        assert (await ask("PUT", "sys/seal", {})).status == 204
        assert (await ask("GET", "secret/data/x")).status == 503
        assert (await ask("GET", "sys/seal-status", token=None)).json["sealed"]
        await vault.node._sealing
        assert (await ask("GET", "secret/data/x")).status == 503

    play(scenario)


def test_a_fault_inside_shows_nothing_of_itself(monkeypatch, caplog):
    async def broken(*_):
        raise RuntimeError(CANARY)

    async def scenario(ask, vault):
        monkeypatch.setattr(vault.vault, "_dispatch", broken)
        answer = await ask("GET", "secret/data/x")
        assert answer.status == 500
        assert CANARY not in str(answer)
        monkeypatch.setattr(vault.node, "handle", broken)
        answer = await ask("GET", "secret/data/x")
        assert (answer.status, CANARY in str(answer)) == (500, False)

    play(scenario)


def _filled(pattern):
    for name, value in (("{path...}", "x/y"), ("{name...}", "x"), ("{name}", "x"), ("{service}", "y")):
        pattern = pattern.replace(name, value)
    return pattern


def _posts(vault):
    """Paths that can be posted to, with the fields that each knows; without what would end the test itself."""
    found = {}
    for mount in mounts_of(vault):
        for route in mount.engine.routes:
            path = mount.path + _filled(route.pattern)
            if not path.endswith(("/", "sys/seal", "revoke-self")):
                found.setdefault(path, set()).update(field.name for field in route.fields)
    return dict(sorted(found.items()))


ODD = [None, True, -1, 1.5, "", "x", "9" * 5000, "\u202e", [], [[]], {}, {"a": {}}, "a" * 70_000, ["x", 1, None]]


@pytest.mark.parametrize("part", range(4))
def test_no_field_of_any_route_takes_odd_values_to_a_server_error(part):
    async def scenario(ask, vault):
        await stripe(vault)
        await furnish(ask)
        for path, own in list(_posts(vault).items())[part::4]:
            fields = {*own, "token", "paths", "path", "accessor", "egress", "policies", "options", "data"}
            # A third of them for all fields and a seventh for each, in turn; the campaign of bodies sends them all.
            bodies = [dict.fromkeys(fields, value) for value in ODD[len(path) % 3 :: 3]]
            bodies += [{name: value} for turn, name in enumerate(sorted(own)) for value in ODD[turn % 7 :: 7]]
            for body in bodies[:3] if path.startswith("sys/audit-log/") else bodies:
                answer = await ask("POST", path, body)
                assert answer.status < 500, (path, str(body)[:500], answer.body)
            for query in ("limit=9" + "9" * 5000, "version=x&version=y", "after=%00", "a=" + "b" * 9000, "%ff=%fe"):
                answer = await ask("GET", f"{path}?{query}")
                assert answer.status < 500, (path, query[:60], answer.body)

    play(scenario)
