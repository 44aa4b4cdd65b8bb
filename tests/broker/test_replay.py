"""Replay of policies: what is noted of calls and what never is, who may, when it ends, what a changed rule would do."""

import json

import pytest

from broker.stack import HOST, SECRET, Stack
from keyhole.broker import noting
from keyhole.broker.noting import masked
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, StoreUnavailable
from keyhole.core.question import Question

CAPTURE, REPLAY = "sys/policy-capture", "sys/policy-replay"
GITHUB = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.fixture
def world(stack, run):
    async def make():
        await stack.secret("stripe/key")
        await stack.service("pay", paths=["/v1/**"], methods=[])
        return await stack.agent("coder", "pay")

    stack.token = run(make())
    yield stack

    async def end():
        await stack.ask("delete", f"{CAPTURE}/calls")
        for name in (await stack.ask("list", "services"))["keys"]:
            await stack.ask("delete", f"services/{name}")

    run(end())


async def noted(stack):
    """Every call that lies in the store, and its text."""
    vault = stack.keyhole.node.vault
    await stack.keyhole.broker.notings.settle()
    storage = vault.storage(vault.root_org, noting.MOUNT)
    paths = await noting.pieces(vault, vault.root_org)
    found = [await noting.read_piece(storage, path, vault.clock.now()) for path in paths]
    return [question for piece in found for question in piece]


async def service_now(stack, name="pay", **fields):
    data = await stack.ask("read", f"services/{name}")
    return {**{key: value for key, value in data.items() if key != "name"}, **fields}


async def replay(stack, **changes):
    return await stack.ask("update", REPLAY, changes)


def test_a_call_is_noted_with_names_and_without_any_value(world, run):
    async def scenario():
        await world.get(world.token, "/v1/before")
        await world.ask("update", CAPTURE, {})
        other = "hunter2/ and a value of nobody's shape"
        await world.secret("plain/key", "correcthorse")
        await world.service("plain", hosts=["other.test"], secret="plain/key")
        secrets = f"X-Mine: {other}\r\nCookie: session=abc\r\nUser-Agent: tool/1\r\nX-Mine: again\r\n".encode()
        path = f"/v1/{GITHUB}/users/correcthorse/7?page=hidden&key={GITHUB}&justavalue"
        await world.ask("update", "sys/org", {"tripwire": "off"})
        await world.get(world.token, path, method="POST", headers=secrets, body=b"body-of-mine")
        await world.ask("update", "sys/org", {"tripwire": "stop"})
        [call] = await noted(world)
        assert (call.agent, call.method, call.scheme, call.host, call.port) == (
            "agent/coder", "POST", "https", HOST, world.secure,
        )  # fmt: skip
        assert call.path == f"/v1/{'*' * len(GITHUB)}/users/************/7"
        assert call.parameters == ("page", "key")
        assert set(call.headers) >= {"x-mine", "cookie", "user-agent"}
        assert len(set(call.headers)) == len(call.headers)
        assert (call.size, call.allowed, call.through) == (12, True, "pay")
        text = json.dumps(call.as_data())
        for hidden in (
            other,
            GITHUB,
            SECRET,
            "correcthorse",
            "session",
            "tool/1",
            "hidden",
            "justavalue",
            "body-of-mine",
            world.token,
        ):
            assert hidden not in text
        assert Question.from_data(json.loads(text)) == call

    run(scenario())


def test_what_is_stopped_for_a_value_or_for_its_own_token_keeps_neither(world, run):
    async def scenario():
        await world.ask("update", CAPTURE, {})
        reply = await world.get(world.token, f"/v1/{SECRET}")
        assert reply.code == "policy_denied"
        assert (await world.get(world.token, f"/v1/x?t={world.token}")).code == "policy_denied"
        [call] = await noted(world)
        assert (call.stage, call.path, call.parameters, call.headers) == ("tripwire", "", (), ())
        found = await replay(world)
        assert (found["calls"], found["not_asked"]) == (0, 1)

    run(scenario())


def test_nothing_in_the_store_can_be_read_without_the_vault(world, run):
    async def scenario():
        await world.ask("update", CAPTURE, {})
        await world.get(world.token, "/v1/a-path-to-look-for")
        assert len(await noted(world)) == 1
        store = world.keyhole.node.store
        entries = await store.get(await store.list("", limit=10_000))
        everything = b"".join(entry.value or b"" for entry in entries)
        assert b"a-path-to-look-for" not in everything
        assert HOST.encode() not in everything

    run(scenario())


def test_off_nothing_is_noted_and_it_ends_by_itself(world, run, monkeypatch):
    async def scenario():
        with pytest.raises(NotFound):
            await world.ask("read", CAPTURE)
        await world.get(world.token)
        assert await noted(world) == []
        assert (await world.ask("update", CAPTURE, {"for": "1h", "keep": "2h"}))["on"]
        await world.get(world.token)
        clock = world.keyhole.node.vault.clock
        later = clock.now
        monkeypatch.setattr(clock, "now", lambda: later() + 3601)
        await world.ask("update", "agents/coder/token", {"ttl": "9h"})
        token = (await world.ask("update", "agents/coder/token", {"ttl": "9h"}))["token"]
        assert (await world.get(token)).status == 200
        assert len(await noted(world)) == 1
        assert not (await world.ask("read", CAPTURE))["on"]
        monkeypatch.setattr(clock, "now", lambda: later() + 3 * 3600)
        assert await noted(world) == []
        assert (await replay(world))["calls"] == 0
        await world.keyhole.node.sweep()
        vault = world.keyhole.node.vault
        assert await noting.pieces(vault, vault.root_org) == []

    run(scenario())


def test_it_ends_when_it_is_full_and_when_it_is_turned_off(world, run):
    async def scenario():
        await world.ask("update", CAPTURE, {"most": 3})
        streams = await world.tunnel(world.token)
        for _ in range(5):
            assert (await world.send(streams)).status == 200
        state = await world.ask("read", CAPTURE)
        assert (state["on"], state["calls"], state["most"]) == (False, 3, 3)
        await world.ask("update", CAPTURE, {})
        await world.send(streams)
        await world.ask("delete", CAPTURE)
        await world.send(streams)
        streams[1].close()
        assert not (await world.ask("read", CAPTURE))["on"]
        assert len(await noted(world)) == 4
        await world.ask("delete", f"{CAPTURE}/calls")
        assert await noted(world) == []

    run(scenario())


def test_calls_that_wait_to_be_stored_are_forgotten_with_all_others(world, run):
    async def scenario():
        await world.ask("update", CAPTURE, {})
        await world.get(world.token)
        vault = world.keyhole.node.vault
        await noting.remove_all(vault, vault.root_org)  # as another node does it, which knows nothing of this one's
        assert await noted(world) == []
        assert (await replay(world))["calls"] == 0

    run(scenario())


@pytest.mark.parametrize("fields", [{"for": "31d"}, {"keep": "91d"}, {"most": 100_001}, {"most": 0}, {"for": "soon"}])
def test_its_bounds_cannot_be_left(world, run, fields):
    async def scenario():
        with pytest.raises(InvalidRequest):
            await world.ask("update", CAPTURE, fields)

    run(scenario())


def test_neither_an_agent_nor_another_org_reads_or_changes_it(world, run):
    async def scenario():
        await world.ask("update", CAPTURE, {})
        await world.get(world.token, "/v1/ours")
        for operation, path in (("read", CAPTURE), ("update", CAPTURE), ("delete", CAPTURE), ("update", REPLAY)):
            with pytest.raises(KeyholeError, match="permission denied"):
                await world.ask(operation, path, {}, world.token)
        await world.ask(
            "update", "sys/policies/acl/writer", {"policy": f'path "{REPLAY}" {{ capabilities = ["update"] }}'}
        )
        made = await world.ask("update", "auth/token/create", {"policies": ["writer"]})
        with pytest.raises(KeyholeError, match="permission denied"):  # sudo is missing
            await world.ask("update", REPLAY, {}, made["client_token"])
        theirs = (await world.ask("update", "sys/namespaces/rival", {}))["root_token"]
        with pytest.raises(NotFound):
            await world.ask("read", CAPTURE, token=theirs)
        assert (await world.ask("update", REPLAY, {}, theirs))["calls"] == 0
        await world.ask("delete", f"{CAPTURE}/calls", token=theirs)
        assert len(await noted(world)) == 1
        assert (await replay(world))["calls"] == 1
        records = (await world.ask("read", "sys/audit-log", {"limit": 50}))["records"]
        paths = [
            (record.get("path"), record.get("result", ""))
            for record in records
            if record.get("path") in {CAPTURE, REPLAY}
        ]
        assert (CAPTURE, "policy_denied") in paths
        assert {(CAPTURE, ""), (REPLAY, "")} <= set(paths)

    run(scenario())


def test_a_changed_rule_shows_what_it_would_have_decided_otherwise(world, run):
    async def scenario():
        await world.service("admin", hosts=["a.test"], paths=[])
        await world.ask("update", CAPTURE, {})
        streams = await world.tunnel(world.token)
        for method, path in (("GET", "/v1/read"), ("POST", "/v1/write"), ("POST", "/v1/write"), ("GET", "/v2/new")):
            await world.send(streams, path, method=method)
        streams[1].close()
        reply, streams = await world.connect(world.token, "a.test:443")
        streams[1].close()
        assert reply.status == 403

        same = await replay(world, services={"pay": await service_now(world)})
        assert (same["calls"], same["newly_refused"], same["newly_allowed"], same["another_service"]) == (5, 0, 0, 0)
        assert (await replay(world))["decided_otherwise_then"] == 0

        only_get = await replay(world, services={"pay": await service_now(world, methods=["GET"])})
        assert (only_get["newly_refused"], only_get["newly_allowed"]) == (2, 0)
        [example, _] = only_get["examples"]["newly_refused"]
        assert (example["method"], example["after"]["code"]) == ("POST", "policy_denied")
        assert example["url"] == f"https://{HOST}:{world.secure}/v1/write"
        assert {(each["agent"], each["from"], each["calls"]) for each in only_get["groups"]} == {
            ("agent/coder", "pay", 2)
        }

        wider = await replay(world, services={"pay": await service_now(world, paths=[])})
        assert (wider["newly_refused"], wider["newly_allowed"]) == (0, 1)

        grant = 'path "services/pay" { capabilities = ["use"] }\npath "services/admin" { capabilities = ["use"] }'
        granted = await replay(world, policies={"agent/coder": grant})
        assert (granted["newly_refused"], granted["newly_allowed"]) == (0, 1)
        taken = await replay(world, policies={"agent/coder": None})
        assert taken["newly_refused"] == 3

        finer = await service_now(world, paths=["/v1/read"])
        everything = {"agent/coder": 'path "services/*" { capabilities = ["use"] }'}
        moved = await replay(world, services={"reader": finer}, policies=everything)
        assert (moved["another_service"], moved["examples"]["another_service"][0]["after"]["service"]) == (1, "reader")

        gone = await replay(world, services={"pay": None}, egress="allow")
        assert (gone["newly_refused"], gone["another_service"], gone["newly_allowed"]) == (0, 3, 1)

        nothing = await replay(world, agent="nobody", services={"pay": None})
        assert nothing["calls"] == 0
        # Nothing of it was real.
        assert (await world.get(world.token)).status == 200
        assert (await world.ask("list", "services"))["keys"] == ["admin", "pay"]

    run(scenario())


def test_what_a_placeholder_decided_is_decided_so_again(world, run):
    async def scenario():
        for name in ("live", "test"):
            await world.service(name, placeholder=f"sk-placeholder-{name}", paths=["/v1/**"], methods=["GET", "PUT"])
            await world.ask("update", f"agents/coder/services/{name}")
        await world.ask("update", CAPTURE, {})
        await world.get(world.token, headers=b"Authorization: Bearer sk-placeholder-test\r\n")
        assert (await world.get(world.token)).code == "ambiguous_service"
        calls = await noted(world)
        assert [(call.through, call.shown, call.code) for call in calls] == [
            ("test", "test", ""),
            ("", "", "ambiguous_service"),
        ]
        assert "sk-placeholder" not in json.dumps([call.as_data() for call in calls])
        same = await replay(world)
        assert (same["calls"], same["newly_refused"], same["newly_allowed"], same["another_service"]) == (2, 0, 0, 0)
        alone = await replay(world, services={"test": None})
        assert (alone["another_service"], alone["newly_allowed"]) == (1, 1)

    run(scenario())


def test_what_cannot_be_replayed_is_named_and_not_guessed(world, run):
    async def scenario():
        await world.ask("update", CAPTURE, {})
        await world.get(world.token, "/v1/x", method="POST", body=b'{"amount": 5}')
        body = await service_now(world, conditions={"body": [{"at": "/amount", "max": 3}]}, limits={"rate": "10/m"})
        found = await replay(world, services={"pay": body})
        assert (found["newly_refused"], found["undecided"]) == (0, 1)
        assert found["depends"] == {"body": 1, "rate": 1}
        approved = await replay(world, services={"pay": await service_now(world, approval=True)})
        assert (approved["undecided"], approved["depends"]) == (1, {"approval": 1})
        closed = await service_now(world, conditions={"until": "2001-01-01"})
        assert (await replay(world, services={"pay": closed}))["newly_refused"] == 1

    run(scenario())


def test_without_a_change_the_rules_of_today_are_held_against_what_was_answered(world, run):
    async def scenario():
        await world.service("pay", limits={"rate": "100/m"})
        await world.ask("update", CAPTURE, {})
        await world.get(world.token)
        found = await replay(world)
        assert (found["newly_refused"], found["undecided"], found["depends"]) == (0, 0, {"rate": 1})
        await world.ask("delete", "agents/coder/services/pay")
        assert (await replay(world))["newly_refused"] == 1
        drifted = await replay(world, policies={"nobody-has-this": None})
        assert (drifted["newly_refused"], drifted["decided_otherwise_then"]) == (0, 1)
        await world.ask("update", "agents/coder/services/pay", {})

    run(scenario())


@pytest.mark.parametrize(
    "changes",
    [
        {"policies": {"root": None}},
        {"policies": {"ops": 7}},
        {"policies": {"ops": "path {"}},
        {"policies": ["ops"]},
        {"services": {"pay": {"hosts": []}}},
        {"services": {"pay": "text"}},
        {"services": {"no/name": None}},
        {"egress": "perhaps"},
        {"examples": 101},
        {"after": "someday"},
    ],
)
def test_a_change_that_is_none_is_refused_in_words(world, run, changes):
    async def scenario():
        with pytest.raises(InvalidRequest) as refused:
            await replay(world, **changes)
        assert refused.value.reason

    run(scenario())


@pytest.mark.parametrize("name", ["for", "keep"])
def test_a_time_of_nothing_is_refused_with_what_it_may_be(world, run, name):
    async def scenario():
        with pytest.raises(InvalidRequest, match="from 1s to"):
            await world.ask("update", CAPTURE, {name: "0s"})

    run(scenario())


def test_what_was_noted_stays_when_the_process_ends(run):
    async def scenario():
        async with Stack() as stack:
            await stack.secret("stripe/key")
            await stack.service("pay")
            token = await stack.agent("coder", "pay")
            await stack.ask("update", CAPTURE, {})
            await stack.get(token, "/v1/x")
            vault = stack.keyhole.node.vault
            assert await noting.pieces(vault, vault.root_org) == []
            await stack.keyhole.broker.notings.settle()
            assert len(await noting.pieces(vault, vault.root_org)) == 1
            await stack.get(token, "/v1/y")
            await stack.keyhole.node.seal()
            assert stack.keyhole.broker.notings.last(vault.root_org) is None

    run(scenario())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/v1/charges/ch_1/refunds", "/v1/charges/ch_1/refunds"),
        (
            "/repos/some-long-organisation/some-long-repository-name",
            "/repos/some-long-organisation/some-long-repository-name",
        ),
        (f"/v1/{GITHUB}/x", f"/v1/{'*' * len(GITHUB)}/x"),
        ("/v1/q8Zr3LtV0xNcY7uKpWm2/x", f"/v1/{'*' * 20}/x"),
        ("/things/1f0c7a3e-9b1d-4c52-8e7f-0123456789ab", "/things/1f0c7a3e-9b1d-4c52-8e7f-0123456789ab"),
    ],
)
def test_shapes_and_random_words_are_masked_and_nothing_else(text, clean):
    assert masked(text) == clean


def test_of_calls_that_are_partly_stored_the_others_are_counted_as_missed(world, run, monkeypatch):
    async def scenario():
        await world.ask("update", CAPTURE, {})
        await world.get(world.token, "/v1/first")
        await world.keyhole.broker.notings.settle()
        notes = world.keyhole.broker.notings.last(world.keyhole.node.vault.root_org)
        stored, store = [], notes._store

        async def once(questions, values):
            if stored:
                raise StoreUnavailable("the disk is full", "make room")
            stored.extend(questions)
            await store(questions, values)

        monkeypatch.setattr(noting, "_PIECE", 2)
        monkeypatch.setattr(notes, "_store", once)
        for number in range(5):
            await world.get(world.token, f"/v1/{number}")
        before = notes.missed
        await notes.store()
        assert (len(stored), notes.missed - before) == (2, 3)

    run(scenario())
