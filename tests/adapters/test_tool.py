"""``@kh.tool``: an agent sees a function without credentials, and never a value of one."""

import asyncio
import base64
import copy
import dataclasses
import inspect
import json
import pickle
import typing

import pytest

from cli_driver import environment, run, serving
from keyhole import AsyncClient, Client
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound

VALUE = "xoxb-tool-0123456789-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = ("--dev", "--dev-root-token-id", "root")
    with serving(*options, env=environment(KEYHOLE_HOME=str(tmp_path_factory.mktemp("home")))) as (_, started):
        with Client(started["api"], token="root") as kh:
            kh.write("secret/data/slack/bot-token", {"data": {"value": VALUE}})
            kh.write("secret/data/db/prod", {"data": {"username": "u", "password": "p4ssw0rd-0123456789"}})
        yield started["api"]


@pytest.fixture
def kh(server):
    with Client(server, token="root") as client:
        yield client


def send_tool(kh):
    @kh.tool("slack.send", needs={"token": "slack/bot-token"})
    def send(channel: str, text: str = "hi", *, credentials) -> dict:
        """Send a message."""
        assert credentials.token == credentials["token"] == VALUE
        return {"channel": channel, "text": text, "echo": f"Bearer {credentials.token}"}

    return send


def test_the_framework_sees_the_function_without_its_credentials(kh):
    send = send_tool(kh)
    assert str(inspect.signature(send)) == "(channel: str, text: str = 'hi') -> dict"
    assert set(typing.get_type_hints(send)) == {"channel", "text", "return"}
    assert (send.__name__, send.__doc__, send.tool_name) == ("send", "Send a message.", "slack.send")
    assert "credentials" not in str(inspect.getfullargspec(send))


@pytest.mark.parametrize(
    "make",
    [
        lambda value: value,
        lambda value: value.encode(),
        lambda value: {"a": [{"b": (value,)}], value: 1},
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: json.dumps({"v": value}),
        lambda value: "".join(f"\\u{ord(char):04x}" for char in value),
        dataclasses.make_dataclass("Made", ["text"]),
    ],
)
def test_no_result_has_a_value_in_it(kh, make):
    @kh.tool("echo", needs={"token": "slack/bot-token"})
    def echo(*, credentials):
        return make(credentials.token)

    assert str(make("x")) != ""
    for form in (VALUE, base64.b64encode(VALUE.encode()).decode()[:20], VALUE.encode().hex()):
        assert form not in str(echo())
    assert "*" in str(echo())


def test_a_result_without_a_value_is_the_very_one(kh):
    made = {"list": [1, 2.5, None, "text", b"bytes", ("a", {"b"})], "n": object()}

    @kh.tool("same", needs={"token": "slack/bot-token"})
    def same(*, credentials):
        return made

    assert same() is made


def test_no_error_has_a_value_in_it(kh):
    @kh.tool("fail", needs={"token": "slack/bot-token"})
    def fail(how, *, credentials):
        if how == "cause":
            try:
                int(credentials.token)
            except ValueError as error:
                raise RuntimeError("outer") from error
        raise {"plain": ZeroDivisionError("no value"), "told": ValueError(f"bad token {credentials.token}")}[how]

    with pytest.raises(ZeroDivisionError, match="no value"):
        fail("plain")
    for how, kind in (("told", "ValueError: bad token \\*"), ("cause", "RuntimeError: outer")):
        with pytest.raises(KeyholeError, match=kind) as caught:
            fail(how)
        assert VALUE not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_async_functions_and_streams(kh):
    @kh.tool("slow", needs={"token": "slack/bot-token"})
    async def slow(*, credentials):
        await asyncio.sleep(0)
        return credentials.token

    @kh.tool("stream", needs={"token": "slack/bot-token"})
    def stream(*, credentials):
        yield "a"
        yield from (f"x{credentials.token}é"[at : at + 3] for at in range(0, len(VALUE) + 2, 3))
        yield {"done": credentials.token}

    @kh.tool("flow", needs={"token": "slack/bot-token"})
    async def flow(*, credentials):
        for char in f"x{credentials.token}y":
            yield char

    async def gathered():
        return "".join([piece async for piece in flow()])

    assert asyncio.run(slow()) == "*" * len(VALUE)
    *texts, last = stream()
    assert "".join(texts) == f"ax{'*' * len(VALUE)}é"
    assert last == {"done": "*" * len(VALUE)}
    assert asyncio.run(gathered()) == f"x{'*' * len(VALUE)}y"


def test_credentials_end_with_the_call_and_are_not_shown(kh):
    kept = []

    @kh.tool("keep", needs={"token": "slack/bot-token", "db": "db/prod"})
    def keep(*, credentials):
        assert credentials.db.password == "p4ssw0rd-0123456789"
        assert list(credentials) == ["token", "db"]
        assert VALUE not in f"{credentials!r} {credentials}"
        for copying in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                copying(credentials)
        with pytest.raises(AttributeError, match="needs no 'other'"):
            _ = credentials.other
        kept.append(credentials)

    keep()
    with pytest.raises(InvalidRequest, match="has ended"):
        _ = kept[0].token


def test_a_new_value_is_used_at_the_next_call(kh):
    @kh.tool("fresh", needs={"token": "slack/fresh"})
    def fresh(*, credentials):
        return len(credentials.token)

    with pytest.raises(NotFound):
        fresh()
    for value in ("a" * 10, "b" * 12):
        kh.write("secret/data/slack/fresh", {"data": {"value": value}})
        assert fresh() == len(value)


def test_each_use_is_recorded_with_the_tool_and_its_token_ends_with_the_client(server):
    with Client(server, token="root") as kh:
        send_tool(kh)("general")
    with Client(server, token="root") as kh:
        records = kh.read("sys/audit-log", secret="slack/bot-token", limit=500).data["records"]
        assert "slack.send" in {record["tool"] for record in records if record["operation"] == "read"}
        assert VALUE not in json.dumps(records)
        accessors = kh.list("auth/token/accessors").data["keys"]
        assert len(accessors) == 1


def test_a_tool_whose_token_was_ended_gets_another_one(server):
    with Client(server, token="root") as kh, Client(server, token="root") as other:
        send = send_tool(kh)
        before = set(other.list("auth/token/accessors").data["keys"])
        send("general")
        for accessor in set(other.list("auth/token/accessors").data["keys"]) - before:
            other.write("auth/token/revoke-accessor", {"accessor": accessor})
        assert send("general")["channel"] == "general"


def test_who_may_not_read_gets_nothing_and_who_may_not_make_tokens_reads_with_its_own(server):
    with Client(server, token="root") as root:
        root.write("sys/policies/acl/reader", {"policy": 'path "secret/data/slack/*" { capabilities = ["read"] }'})
        none = root.write("auth/token/create", {"policies": ["default"]}).auth["client_token"]
        reader = root.write("auth/token/create", {"policies": ["reader"]}).auth["client_token"]
    with Client(server, token=none) as kh, pytest.raises(KeyholeError, match="permission denied"):
        send_tool(kh)("general")
    with Client(server, token=reader) as kh:
        assert send_tool(kh)("general")["channel"] == "general"


def test_a_wrong_tool_is_said_when_it_is_made(kh):
    with pytest.raises(InvalidRequest, match="keyword parameter"):
        kh.tool("x", needs={})(lambda credentials: None)
    with pytest.raises(InvalidRequest):
        kh.tool("a b", needs={})
    with pytest.raises(InvalidRequest):
        kh.tool("x", needs={"token": "a//b"})
    with pytest.raises(InvalidRequest, match="not given by"):
        send_tool(kh)("general", credentials={"token": "mine"})


def test_the_awaiting_client_has_it_too(server):
    async def main():
        async with AsyncClient(server, token="root") as kh:

            @kh.tool("slack.send", needs={"token": "slack/bot-token"})
            async def send(channel, *, credentials):
                return credentials.token

            return await send("general")

    assert asyncio.run(main()) == "*" * len(VALUE)


def test_a_vault_of_this_machine_lends_too(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path))
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    monkeypatch.setenv("KEYHOLE_SEAL", f"keyfile:{key}")
    assert run("init", "--seal", f"keyfile:{key}").code == 0
    assert run("set", "slack/bot-token", stdin=VALUE.encode()).code == 0
    with Client() as kh:
        assert send_tool(kh)("general")["echo"] == f"Bearer {'*' * len(VALUE)}"
