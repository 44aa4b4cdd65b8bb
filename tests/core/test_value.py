import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from string import Template

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.value import Secret

VALUE = "hunter2-correct-horse"


@dataclasses.dataclass
class Holder:
    secret: Secret


def logged(message, *arguments):
    stream = io.StringIO()
    record = logging.LogRecord("keyhole", logging.ERROR, __file__, 1, message, arguments, None)
    handler = logging.StreamHandler(stream)
    handler.emit(record)
    return stream.getvalue()


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        pprint.pformat,
        lambda s: f"{s} {s!r} {s!s} {s!a} {s:>40}",
        lambda s: f"{s=}",
        lambda s: f"{s} %s %r" % (s, s),
        "{0} {0!r:>9}".format,
        lambda s: Template("$s").substitute(s=s),
        lambda s: str([s, {"k": s}, (s,), Holder(s)]),
        lambda s: json.dumps({"k": s}, default=str),
        lambda s: json.dumps({"k": s}, default=repr),
        lambda s: logged("%s %r", s, s),
        lambda s: str(ValueError(s)) + repr(ValueError("lost", s)),
    ],
)
def test_a_secret_never_shows_in_text(show):
    shown = show(Secret(VALUE))
    assert "***" in shown
    assert VALUE not in shown
    assert VALUE.encode().hex() not in shown


@pytest.mark.parametrize(
    "take",
    [
        json.dumps,
        pickle.dumps,
        lambda s: pickle.dumps(s, protocol=0),
        lambda s: pickle.dumps(Holder(s)),
        copy.copy,
        copy.deepcopy,
        lambda s: copy.deepcopy([s]),
        lambda s: dataclasses.asdict(Holder(s)),
        bytes,
        bytearray,
        memoryview,
        list,
        iter,
        hash,
        vars,
        lambda s: {s},
        lambda s: s[0],
        lambda s: s + "x",
        lambda s: b"".join([s]),
        lambda s: "".join(iter([s])),
        lambda s: s < Secret("z"),
    ],
)
def test_a_secret_cannot_be_serialised_copied_or_taken_apart(take):
    with pytest.raises((TypeError, AttributeError)) as caught:
        take(Secret(VALUE))
    assert VALUE not in "".join(traceback.format_exception(caught.value))


def test_a_traceback_that_prints_local_variables_shows_no_value():
    def fail(secret):
        held = {"k": Holder(secret)}
        raise RuntimeError(held, secret)

    try:
        fail(Secret(VALUE))
    except RuntimeError as error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        text = "".join(lines)
    assert "Secret(***)" in text
    assert VALUE not in text


def test_text_that_cannot_be_encoded_is_refused_without_being_repeated():
    with pytest.raises(InvalidRequest) as caught:
        Secret(VALUE + "\ud800")
    error = caught.value
    assert VALUE not in repr(error) + str(error) + error.hint
    assert error.__context__ is None, "Python's own error carries the whole text"


def test_only_reveal_gives_the_bytes():
    assert Secret("é").reveal() == "é".encode()
    assert Secret(b"\x00\xff").reveal() == b"\x00\xff"
    assert len(Secret("é")) == 2
    assert not Secret("")


def test_a_secret_does_not_follow_the_buffer_that_it_was_made_from():
    buffer = bytearray(b"abc")
    secret = Secret(bytes(buffer))
    buffer[0] = 0
    assert secret.reveal() == b"abc"


def test_secrets_are_equal_by_value_and_to_nothing_else():
    assert Secret("a") == Secret(b"a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("a") != b"a"


def test_a_secret_takes_no_further_attributes():
    with pytest.raises(AttributeError):
        Secret("a").note = "b"
