"""What a tool gives back or raises has no value in it, wherever that would be."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import io
import sys
import threading
import traceback
import types
import typing

import pytest
from pydantic import BaseModel, PrivateAttr

from keyhole.adapters.cleaned import ToolFailed
from keyhole.adapters.tool import wrap
from keyhole.client.context import current
from keyhole.core.errors import InvalidRequest, KeyholeError

VALUE = "xoxb-kept-0123456789-secret"


class Lent:
    """A source that counts what is leased and taken back."""

    def __init__(self):
        self.leased = self.ended = 0
        self.gate = threading.Event()
        self.gate.set()

    def read_as(self, tool, path):
        fields = {"value": VALUE}
        if path.endswith("listed"):
            fields = {"pin": 4711471147, "keys": ["first-key-0123456", {"deep": "deep-key-0123456"}]}
        return {"data": fields}

    @contextlib.contextmanager
    def lease_for(self, source):
        self.gate.wait(10)
        self.leased += 1
        try:
            yield type("Leased", (), {"fields": staticmethod(lambda: {"password": VALUE})})
        finally:
            self.ended += 1


@pytest.fixture
def lent():
    return Lent()


def tool(lent, function=None, **needs):
    return wrap(lent, "test.tool", needs or {"token": "slack/bot-token"})(function)


class Held:
    def __init__(self, text):
        self.inner = {"list": [text]}


class Slotted:
    __slots__ = ("text",)

    def __init__(self, text):
        self.text = text


class Shown:
    def __init__(self, text):
        self.show = lambda: text

    def __repr__(self):
        return self.show()


class Model(BaseModel, extra="allow"):
    text: str
    _hidden: str = PrivateAttr("")


@dataclasses.dataclass(frozen=True)
class Made:
    text: str
    given: dataclasses.InitVar[str] = ""
    later: str = dataclasses.field(init=False, default="")

    def __post_init__(self, given):
        object.__setattr__(self, "later", given)


def hidden(text):
    model = Model(text="x")
    model._hidden = text
    return model


@pytest.mark.parametrize("make", [Held, Slotted, Shown, hidden, ValueError, lambda text: [Held(text)]])
def test_an_object_with_a_value_in_it_is_not_given_back(lent, make):
    def give(*, credentials):
        return make(credentials.token)

    with pytest.raises(ToolFailed, match="credential in the") as caught:
        tool(lent, give)()
    assert VALUE not in everything(caught.value)


@pytest.mark.parametrize(
    "make", [lambda text: iter([text]), lambda text: [io.StringIO(text)], lambda text: (t for t in [text])]
)
def test_what_is_not_there_yet_is_not_given_back(lent, make):
    def give(*, credentials):
        return make(credentials.token)

    with pytest.raises(ToolFailed, match="not there yet: give back texts"):
        tool(lent, give)()


def test_models_and_dataclasses_are_made_again_with_all_their_fields(lent):
    def model(*, credentials):
        return Model(text=credentials.token, more=credentials.token, number=7)

    def made(*, credentials):
        return Made(credentials.token, given=credentials.token)

    masked = "*" * len(VALUE)
    assert tool(lent, model)().model_dump() == {"text": masked, "more": masked, "number": 7}
    assert (tool(lent, made)().text, tool(lent, made)().later) == (masked, masked)
    assert tool(lent, lambda *, credentials: Made("fine"))() == Made("fine")


def test_objects_without_a_value_are_given_back_as_they_are(lent):
    given = [Held("x"), Slotted("y"), hidden("z"), object(), 12, 1.5, None, True]
    assert tool(lent, lambda *, credentials: given)() is given


def test_values_that_are_numbers_or_lie_in_lists_are_found_too(lent):
    def give(*, credentials):
        assert credentials.all.pin == 4711471147
        return [credentials.all.pin, "no first-key-0123456", "deep-key-0123456", f"pin {credentials.all.pin}"]

    given = tool(lent, give, all="some/listed")()
    assert given == ["*" * 10, f"no {'*' * 17}", "*" * 16, f"pin {'*' * 10}"]


class Answered(Exception):
    def __init__(self, message, answer):
        super().__init__(message)
        self.answer = answer


def fail(how, token):
    if how == "attribute":
        raise Answered("refused", Held(token))
    if how == "group":
        raise ExceptionGroup("both", [ValueError("one"), KeyError(token)])
    if how == "note":
        error = ValueError("plain")
        error.add_note(f"with {token}")
        raise error
    if how == "decode":
        (token.encode() + b"\xff").decode()
    if how == "context behind a cause":
        try:
            int(token)
        except ValueError:
            raise RuntimeError("outer") from KeyError("cause")
    if how == "hidden context":
        try:
            int(token)
        except ValueError:
            raise RuntimeError("outer") from None
    raise RuntimeError("unreached")


def everything(error):
    """All that a reporter of errors would send: the chain, attributes, and variables of each frame."""
    texts, waiting = [], [error]
    while waiting:
        each = waiting.pop()
        texts += [repr(each), str(each.args), repr(vars(each))]
        waiting += [found for found in (each.__cause__, each.__context__) if found]
        walked = traceback.walk_tb(each.__traceback__)
        own = [frame for frame, _ in walked if frame.f_code.co_filename != __file__ or frame.f_code.co_name == "fail"]
        texts += [repr(value) for frame in own for value in frame.f_locals.values()]
    return "\n".join(texts)


HOW = ["attribute", "group", "note", "decode", "context behind a cause", "hidden context"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["plain", "generator", "coroutine", "asynchronous generator"])
def test_an_error_has_no_value_in_its_attributes_nor_in_what_it_came_from(lent, how, kind):
    def plain(*, credentials):
        fail(how, credentials.token)

    def generator(*, credentials):
        yield "first"
        fail(how, credentials.token)

    async def coroutine(*, credentials):
        fail(how, credentials.token)

    async def flow(*, credentials):
        yield "first"
        fail(how, credentials.token)

    async def drained(items):
        return [item async for item in items]

    run = {
        "plain": tool(lent, plain),
        "generator": lambda: list(tool(lent, generator)()),
        "coroutine": lambda: asyncio.run(tool(lent, coroutine)()),
        "asynchronous generator": lambda: asyncio.run(drained(tool(lent, flow)())),
    }[kind]
    with pytest.raises(ToolFailed) as caught:
        run()
    assert VALUE not in everything(caught.value)
    assert caught.value.__context__ is None


def test_the_variables_of_a_function_that_failed_are_forgotten(lent):
    def lose(*, credentials):
        token = credentials.token
        assert token == VALUE
        raise ZeroDivisionError("nothing of it")

    with pytest.raises(ZeroDivisionError) as caught:
        tool(lent, lose)()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert [frame.f_code.co_name for frame in frames][-1] == "lose"
    assert frames[-1].f_locals == {}


def test_leaving_the_program_says_no_value_either(lent):
    def leave(*, credentials):
        sys.exit(credentials.token)

    with pytest.raises(SystemExit) as caught:
        tool(lent, leave)()
    assert caught.value.code is None


def test_an_error_that_a_framework_knows_stays_of_its_kind(lent):
    def again(*, credentials):
        raise LookupError(f"try again with {credentials.token}")

    made = tool(lent, again)
    made.kept_errors.append(LookupError)
    with pytest.raises(LookupError) as caught:
        made()
    assert caught.value.args == (f"try again with {'*' * len(VALUE)}",)


def test_streams_of_bytes_are_scrubbed_across_pieces(lent):
    def flow(*, credentials):
        yield "text"
        yield from (credentials.token.encode()[at : at + 4] for at in range(0, len(VALUE), 4))
        yield "end"

    *middle, last = list(tool(lent, flow)())[1:]
    assert b"".join(middle) == b"*" * len(VALUE)
    assert last == "end"


def test_what_is_leased_is_taken_back_when_a_stream_is_left_early(lent):
    closed = []

    def numbers(*, credentials):
        try:
            yield from range(10)
        finally:
            closed.append(True)

    async def flow(*, credentials):
        try:
            for number in range(10):
                yield number
        finally:
            closed.append(True)

    async def first():
        items = tool(lent, flow, db="/database/creds/x")()
        item = await anext(items)
        await items.aclose()
        return item

    items = tool(lent, numbers, db="/database/creds/x")()
    assert next(items) == 0
    assert (lent.leased, lent.ended) == (1, 0)
    items.close()
    assert (lent.ended, closed) == (1, [True])
    assert asyncio.run(first()) == 0
    assert (lent.leased, lent.ended, closed) == (2, 2, [True, True])


def test_what_is_leased_is_taken_back_when_the_caller_is_cancelled_while_it_is_fetched(lent):
    async def never(*, credentials):
        raise AssertionError("it was cancelled before")

    async def main():
        lent.gate.clear()
        task = asyncio.create_task(tool(lent, never, db="/database/creds/x")())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        lent.gate.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert lent.leased == lent.ended == 1


def test_string_annotations_are_resolved_where_the_function_was_written(lent):
    def send(to: Slotted, *, credentials: object) -> Held: ...

    shown = tool(lent, send)
    assert typing.get_type_hints(shown) == {"to": Slotted, "return": Held}
    assert inspect.signature(shown, eval_str=True).parameters["to"].annotation is Slotted


DOCS = [
    """Send it.

    Args:
        to: Who gets it,
            and where.
        credentials: of the call,
            and more.

    Returns:
        What came of it.
    """,
    """Send it.

    :param to: Who gets it.
    :param credentials: of the call
    :returns: what came of it
    """,
    """Send it.

    Parameters
    ----------
    to : str
        Who gets it.
    credentials : Credentials
        Of the call.

    Returns
    -------
    What came of it.
    """,
]


@pytest.mark.parametrize("text", DOCS)
def test_the_text_of_a_function_says_nothing_of_its_credentials(lent, text):
    def send(to: str, *, credentials) -> str: ...

    send.__doc__ = text
    shown = tool(lent, send).__doc__
    assert "redentials" not in shown
    assert "f the call" not in shown
    assert "and more" not in shown
    assert "Who gets it" in shown
    assert "hat came of it" in shown


def test_a_section_about_credentials_alone_is_left_out(lent):
    def send(*, credentials):
        """Send it.

        Args:
            credentials: of the call.
        """

    assert tool(lent, send).__doc__.split() == ["Send", "it."]


def test_partial_functions_methods_and_objects_are_tools_too(lent):
    async def slow(size, *, credentials):
        return credentials.token[:size]

    class Called:
        async def __call__(self, *, credentials):
            return credentials.token

        def method(self, *, credentials):
            return (type(self).__name__, credentials.token)

    assert asyncio.run(tool(lent, functools.partial(slow, 4))()) == "xoxb"
    assert asyncio.run(tool(lent, Called())()) == "*" * len(VALUE)
    assert tool(lent, Called().method)() == ("Called", "*" * len(VALUE))


def test_a_refusal_of_the_vault_is_told_as_it_is(lent):
    lent.read_as = lambda tool, path: {"data": {}}
    with pytest.raises(KeyholeError, match="has no field"):
        tool(lent, lambda *, credentials: None)()


def reachable(error):
    """All texts that a reporter of errors finds in the variables of all functions, and in what they hold."""
    seen, waiting = {}, [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | types.ModuleType | Lent):
            continue
        seen[id(each)] = each
        if isinstance(each, str | bytes):
            yield each if isinstance(each, str) else each.decode("latin-1")
        elif isinstance(each, dict | list | tuple | set):
            waiting += [*each, *(each.values() if isinstance(each, dict) else ())]
        elif not isinstance(each, types.FrameType | types.FunctionType):
            waiting += list(getattr(each, "__dict__", {}).values())
            slots = [name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())]
            waiting += [getattr(each, name, None) for name in slots if name.startswith("_")]


async def all_of(items):
    return [item async for item in items]


def failing(*, credentials):
    raise ZeroDivisionError(len(credentials.token))


def yielding(*, credentials):
    yield f"with {credentials.token}"
    yield {"held": credentials.token}
    raise ZeroDivisionError


async def awaiting(*, credentials):
    raise ZeroDivisionError(len(credentials.token))


async def streaming(*, credentials):
    yield credentials.token[:9]
    yield {"held": credentials.token}
    raise ZeroDivisionError


@pytest.mark.parametrize("function", [failing, yielding, awaiting, streaming])
def test_no_variable_on_the_way_of_an_error_leads_to_a_value(lent, function):
    made = tool(lent, function)
    run = {"failing": made, "yielding": lambda: list(made()), "awaiting": lambda: asyncio.run(made())}
    with pytest.raises(ZeroDivisionError) as caught:
        run.get(function.__name__, lambda: asyncio.run(all_of(made())))()
    assert not [text for text in reachable(caught.value) if VALUE in text or VALUE[:9] in text]


def test_what_was_read_before_a_refusal_is_forgotten(lent):
    with pytest.raises(KeyholeError) as caught:
        tool(lent, failing, token="slack/bot-token", other="slack/bot-token#nothing")()
    assert not [text for text in reachable(caught.value) if VALUE in text]


DERIVED = [type(f"Own{kind.__name__}", (kind,), {}) for kind in (str, list, dict, int)]


@pytest.mark.parametrize("kind", DERIVED)
def test_what_a_derived_kind_holds_besides_its_items_is_found(lent, kind):
    def give(*, credentials):
        made = kind()
        made.request = {"headers": [credentials.token]}
        return made

    found = tool(lent, give)()
    assert found == kind()
    assert not hasattr(found, "request")
    clean = kind()
    clean.request = "nothing"
    assert tool(lent, lambda *, credentials: clean)() is clean


def closure(token):
    return lambda: token


def default(token):
    def give(it=token):
        return it

    return give


@pytest.mark.parametrize(
    "make",
    [
        closure,
        default,
        lambda token: Held(token).__repr__,
        lambda token: token.upper,
        lambda token: {"callback": functools.partial(closure(token))},
    ],
)
def test_a_function_that_brings_a_value_with_it_is_not_given_back(lent, make):
    with pytest.raises(ToolFailed):
        tool(lent, lambda *, credentials: make(credentials.token))()
    assert tool(lent, lambda *, credentials: closure("other"))()() == "other"


def test_a_traceback_that_an_error_carries_tells_no_variables(lent):
    def inner(token):
        raise LookupError(len(token))

    def outer(*, credentials):
        try:
            inner(credentials.token)
        except LookupError as error:
            failed = ZeroDivisionError()
            failed.before = error.__traceback__
        raise failed

    with pytest.raises(ZeroDivisionError) as caught:
        tool(lent, outer)()
    assert all(not frame.f_locals for frame, _ in traceback.walk_tb(caught.value.before))


def test_what_a_generator_does_is_done_by_the_tool(lent):
    said = []

    def flow(*, credentials):
        try:
            said.append(current().claims["tool"])
            yield 1
            said.append(current().claims["tool"])
        finally:
            said.append(current().claims["tool"])

    async def stream(*, credentials):
        for each in flow(credentials=credentials):
            yield each

    items = tool(lent, flow)()
    assert next(items) == 1
    assert current() is None
    items.close()
    assert asyncio.run(all_of(tool(lent, stream)())) == [1]
    assert said == ["test.tool"] * 5


@pytest.mark.parametrize(
    "needs",
    ["slack/bot-token", None, ["a/b"], {"token": None}, {1: "a/b"}, {"to ken": "a/b"}, {"get": "a/b"}, {"_x": "a/b"}],
)
def test_needs_that_are_none_are_said_when_the_tool_is_made(lent, needs):
    with pytest.raises(InvalidRequest):
        wrap(lent, "test.tool", needs)
