"""Log records without credentials: whatever part of a record has one, and whatever the application hands over."""

import base64
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import sys
from dataclasses import dataclass

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.value import Secret
from keyhole.logs import WITHHELD, LogScrubber, ScrubFilter, ScrubFormatter, install

VALUE = 'pa"ss/w0rd-7Kq2'
MASK = "*" * len(VALUE)
TOKEN = "ghp_" + "A1b2C3d4E5f6" * 3


@pytest.fixture
def scrubber():
    return LogScrubber([Secret(VALUE)])


@pytest.fixture
def log(scrubber):
    """A logger and what its handler has written, through a filter alone."""
    return logger_with(ScrubFilter(scrubber))


def logger_with(*filters, formatter=None):
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    for each in filters:
        handler.addFilter(each)
    handler.setFormatter(formatter or logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.Logger("app")  # noqa: LOG001  # one of this test alone
    logger.addHandler(handler)
    return logger, out


class Broken:
    def __str__(self):
        raise RuntimeError(VALUE)

    __repr__ = __str__


class Opaque:
    def __repr__(self):
        return f"<Opaque {VALUE}>"


def fail(*args):
    try:
        {}[VALUE]
    except KeyError as error:
        raise ValueError(*args) from error


def raised(*args):
    try:
        fail(*args)
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize(
    ("message", "given", "wanted"),
    [
        (f"a {VALUE} b", (), f"a {MASK} b"),
        ("a %s b", (VALUE,), f"a {MASK} b"),
        ("a %s b %d", (VALUE, 7), f"a {MASK} b 7"),
        ("a %(key)s b", ({"key": VALUE},), f"a {MASK} b"),
        ("a %s%s b", (VALUE[:7], VALUE[7:]), f"a {MASK} b"),
        ("a %r b", (VALUE,), f"a '{MASK}' b"),
        ("%s", ([1, {"k": VALUE}],), "[1, {'k': '" + MASK + "'}]"),
        ("%s", (VALUE.encode(),), f"b'{MASK}'"),
        ("%s", (base64.b64encode(VALUE.encode()).decode(),), "*" * 20),
        ("%s", (VALUE.encode().hex(),), "*" * 30),
        ("%s", (Opaque(),), f"<Opaque {MASK}>"),
        ("token %s", (TOKEN,), "token " + "*" * len(TOKEN)),
        ("nothing %s %5.1f%%", ("here", 2.5), "nothing here   2.5%"),
    ],
)
def test_the_message_is_clean(log, message, given, wanted):
    logger, out = log
    logger.warning(message, *given)
    assert out.getvalue() == f"WARNING {wanted}\n"


def test_what_has_nothing_to_hide_is_left_as_it_was(scrubber):
    given, error = {"a": [1, "two"]}, raised("plain")
    record = logging.makeLogRecord({"msg": "%(a)s", "args": given, "extra": given})
    before = dict(record.__dict__)
    assert ScrubFilter(scrubber).filter(record)
    assert record.__dict__ == before
    assert all(record.__dict__[name] is before[name] for name in before)
    record = logging.makeLogRecord({"msg": "x", "exc_info": (ValueError, ValueError("x"), None)})
    ScrubFilter(scrubber).filter(record)
    assert record.exc_info[0] is ValueError
    del error


def test_exceptions_stacks_and_extra_attributes_are_clean(log):
    logger, out = log
    logger.addHandler(logging.handlers.QueueHandler(taken := queue.SimpleQueue()))
    for args in ((VALUE,), ("nothing",)):  # in the error itself, and in what it came from
        logger.error("failed", exc_info=raised(*args))
    extra = {"key": VALUE, "nested": {"list": [VALUE, Opaque()]}, "password": "Tr0ub4dor&3x9", "number": 17}
    logger.error("with", extra=extra, stack_info=True)
    text = out.getvalue()
    assert VALUE not in text
    assert "w0rd-7Kq2" not in text
    assert text.count("ValueError: ") == 2
    assert "KeyError" in text
    record = taken.get(), taken.get(), taken.get()
    shown = str(record[2].__dict__)
    assert "w0rd-7Kq2" not in shown
    assert "Tr0ub4dor" not in shown
    assert record[2].number == 17
    assert record[2].nested["list"][0] == MASK
    assert extra["key"] == VALUE, "what the application has stays as it was"
    assert "Traceback" in record[0].getMessage()


class Own(logging.LogRecord):
    def getMessage(self):  # noqa: N802  # the name of the base class
        return f"own {VALUE}"


class Word(str):
    __slots__ = ()

    def __str__(self):
        return VALUE


class Rows(list):
    def __repr__(self):
        return VALUE


class Row(dict):
    __repr__ = Rows.__repr__


@dataclass
class Titled:
    name: str
    __str__ = Rows.__repr__


@pytest.mark.parametrize(
    "thing",
    [Word("a"), Rows(), Row(), Titled("a"), bytearray(VALUE.encode()), memoryview(VALUE.encode()), {"a": Word("b")}],
    ids=lambda thing: type(thing).__name__,
)
def test_what_shows_more_than_it_holds_is_clean(scrubber, thing):
    class Shown(logging.Formatter):
        def format(self, record):
            shown = bytes(record.thing) if isinstance(record.thing, memoryview | bytearray) else record.thing
            return f"{shown} {record.thing!s} {record.thing!r}"

    logger, out = logger_with(ScrubFilter(scrubber), formatter=Shown())
    logger.error("x", extra={"thing": thing})
    assert "w0rd-7Kq2" not in out.getvalue()


def test_a_record_that_makes_its_own_message_and_names_of_attributes_are_clean(scrubber):
    record = Own("app", logging.ERROR, "path", 1, "x", (), None)
    record.levelname = VALUE
    record.__dict__[VALUE] = 1
    ScrubFilter(scrubber).filter(record)
    assert record.getMessage() == f"own {MASK}"
    assert "w0rd-7Kq2" not in str(record.__dict__)
    plain = Own("app", logging.ERROR, "path", 1, "x", (), None)
    ScrubFilter(LogScrubber(["another-value"], shapes=False)).filter(plain)
    assert type(plain) is Own


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ("%d", (VALUE,)),
        ("%s %s", (VALUE,)),
        ("%(x)s", ({"y": VALUE},)),
        ("%s", (Broken(),)),
        (Broken(), ()),
        ("%", (VALUE,)),
    ],
)
def test_what_cannot_be_formatted_raises_nothing_and_shows_nothing(log, capsys, message, given):
    logger, out = log
    logger.warning(message, *given, extra={"broken": Broken()})
    assert "w0rd-7Kq2" not in out.getvalue() + capsys.readouterr().err.split("Call stack")[-1].rpartition("Message:")[2]


def test_a_scrubber_that_fails_withholds(scrubber, monkeypatch):
    logger, out = logger_with(ScrubFilter(scrubber))
    monkeypatch.setattr(scrubber, "_known", lambda _raw: 1 / 0)
    logger.error("a %s", VALUE, extra={"key": VALUE})
    assert out.getvalue() == f"ERROR {WITHHELD}\n"


class Json(logging.Formatter):
    def format(self, record):
        skipped = logging.makeLogRecord({}).__dict__.keys() | {"message"}
        fields = {name: value for name, value in record.__dict__.items() if name not in skipped}
        return json.dumps({"message": record.getMessage(), **fields}, default=repr)


def test_lines_of_json_stay_json(scrubber):
    scrubber.add("8675309420017")
    for filters in ([], [ScrubFilter(scrubber)]):
        logger, out = logger_with(*filters, formatter=ScrubFormatter(Json(), scrubber))
        logger.info("call %s", VALUE, extra={"pin": 8675309420017, "in": {"q": f'"{VALUE}"'}, "o": Opaque(), "n": 1})
        found = json.loads(out.getvalue())
        assert found["message"] == f"call {MASK}" or found["message"].strip("*") == "call "
        assert set(found["pin"]) == {"*"}
        assert found["n"] == 1
        assert "w0rd" not in out.getvalue()


def test_a_formatter_that_shows_local_variables_is_clean(scrubber):
    class Locals(logging.Formatter):
        def formatException(self, ei):  # noqa: N802  # the name of the base class
            return f"{super().formatException(ei)}\n{ei[2].tb_frame.f_locals}"

    logger, out = logger_with(ScrubFilter(scrubber), formatter=ScrubFormatter(Locals(), scrubber))
    key = VALUE
    try:
        int(key[:1])
    except ValueError:
        logger.exception("failed")
    assert "key" in out.getvalue()
    assert "w0rd-7Kq2" not in out.getvalue()


def test_a_configuration_can_name_it_and_install_does_it_for_handlers_that_are_there(monkeypatch):
    monkeypatch.setenv("APP_KEY", VALUE)
    out = io.StringIO()
    names = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"scrub": {"()": "keyhole.logs.ScrubFilter", "env": ["APP_KEY"]}},
        "handlers": {"out": {"class": "logging.StreamHandler", "stream": out, "filters": ["scrub"]}},
        "loggers": {"configured": {"handlers": ["out"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(names)
    logger = logging.getLogger("configured")
    logger.info("a %s", VALUE)
    monkeypatch.setenv("APP_KEY", "another-value-9")
    logger.info("b another-value-9 %s", VALUE)
    assert out.getvalue() == f"a {MASK}\nb {'*' * 15} {MASK}\n"
    other, text = logger_with()
    scrubber = install(LogScrubber(["later-known-5"]), other)
    assert install(scrubber, other) is scrubber
    other.error("later-known-5")
    assert text.getvalue() == "ERROR *************\n"
    assert len(other.handlers[0].filters) == 1


def test_values_come_from_texts_bytes_secrets_and_functions_and_nothing_else():
    scrubber = LogScrubber(["text-value-1", b"bytes-value-2", Secret("secret-value-3"), lambda: ["call-value-4"]])
    text = "text-value-1 bytes-value-2 secret-value-3 call-value-4"
    assert not scrubber.text(text).strip("* ")
    assert "value" not in repr(scrubber)
    with pytest.raises(InvalidRequest) as caught:
        LogScrubber([17])
    assert "int" in str(caught.value)


def test_of_values_that_overlap_nothing_is_left():
    scrubber = LogScrubber(["password1"], shapes=False)
    scrubber.add("user:password1@host-secret")
    for number in range(40):
        scrubber.add(f"another-{number:04}")
    assert scrubber.text("x user:password1@host-secret y") == "x " + "*" * 26 + " y"
    assert scrubber.text("another-0000 another-0039 another-0040").count("*") >= 24
    assert len(scrubber._own._groups) < 8


@dataclass
class Held:
    key: str


def test_values_of_every_kind_are_looked_through(scrubber):
    given = {VALUE: 1, "t": (VALUE, 2), "s": {VALUE}, "d": Held(VALUE), "b": VALUE.encode(), "n": None, "ok": True}
    found = scrubber.value(given)
    assert found == {
        MASK: 1,
        "t": (MASK, 2),
        "s": {MASK},
        "d": {"key": MASK},
        "b": MASK.encode(),
        "n": None,
        "ok": True,
    }
    deep = VALUE
    for _ in range(100):
        deep = [deep]
    assert "w0rd" not in str(scrubber.value(deep))
