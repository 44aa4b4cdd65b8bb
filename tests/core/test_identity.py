import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import Caller, RunContext
from keyhole.core.policy import Acl, PathRule

FIELDS = {"workflow": "nightly", "run": "42", "step": "deploy", "tool": "curl", "on_behalf_of": "user/ana"}


def caller(**changes):
    acl = Acl([PathRule.from_data({"path": "secret/data/x", "capabilities": ["read"]})])
    known = {"org": "acme", "org_id": "o1", "name": "agent/bot", "accessor": "acc", "scope": "full"}
    return Caller(**known | {"policies": ("bot",), "acl": acl} | changes)


def test_a_run_context_keeps_its_five_fields_and_nothing_else():
    context = RunContext.from_data(FIELDS | {"token": "kh.x", "ttl": 5})
    assert context.as_data() == FIELDS
    assert RunContext.from_data({}).as_data() == {}
    assert RunContext.from_data({"tool": None, "run": ""}) == RunContext()


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "a\u202eb", "\ud800", "\u200b", "x" * 201, 5, ["a"], {"a": 1}, True, b"a"]
)
def test_a_run_context_cannot_forge_lines_or_grow_the_journal(text):
    with pytest.raises(InvalidRequest) as caught:
        RunContext.from_data({"step": text})
    assert caught.value.reason.startswith("step must be printable text")
    assert repr(text) not in caught.value.reason


def test_a_caller_is_asked_for_what_its_policies_say():
    assert caller().allows("read", "secret/data/x")
    assert not caller().allows("update", "secret/data/x")
    assert not caller().allows("read", "secret/data/x", sudo=True)
    assert not caller().allows("use", "secret/data/x")


def test_an_authenticated_caller_cannot_be_changed():
    bot = caller()
    for name, value in (("scope", "full"), ("acl", Acl([], root=True)), ("org", "root")):
        with pytest.raises(AttributeError):
            setattr(bot, name, value)


def test_two_tokens_of_one_agent_are_two_callers():
    assert caller() != caller()
