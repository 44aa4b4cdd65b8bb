"""What clients of this process fetch is known to its logs, as long as the client lives."""

import gc

from keyhole.client import fetched
from keyhole.client.api import Client
from keyhole.client.core import Result
from keyhole.logs import LogScrubber

VALUE = "fetched-value-77"


class Transport:
    def __init__(self, answers):
        self.answers = answers

    def ask(self, _operation, path, _data):
        return self.answers[path]

    def close(self):
        pass


def client(**more):
    answers = {
        "secret/data/a": Result(
            {"data": {"value": VALUE, "n": 1}, "metadata": {"version": 1, "note": "metadata-text"}}
        ),
        "secret/metadata/a": Result({"custom": "metadata-text"}),
        "database/creds/r": Result({"password": "leased-value-88"}, lease_id="database/creds/r/1"),
        "cubbyhole/x": Result({"k": "drawer-value-99"}),
        "auth/token/create": Result(auth={"client_token": "token-value-00", "accessor": "accessor-text"}),
    }
    return Client(transport=Transport(answers | more))


def test_what_was_read_before_and_after_is_masked_and_what_is_no_value_is_not():
    kh = client()
    kh.read("secret/data/a")
    scrubber = LogScrubber()
    assert scrubber.text(f"x {VALUE} metadata-text") == "x **************** metadata-text"
    text = "leased-value-88 drawer-value-99 token-value-00 accessor-text metadata-text"
    assert scrubber.text(text) == text
    for path in ("database/creds/r", "cubbyhole/x", "secret/metadata/a"):
        kh.read(path)
    kh.write("auth/token/create")
    assert scrubber.text(text) == "*************** *************** ************** accessor-text metadata-text"
    assert LogScrubber(fetched=False).text(VALUE) == VALUE


def test_a_client_that_is_gone_takes_its_values_along():
    kh = client()
    kh.read("secret/data/a")
    scrubber = LogScrubber()
    assert scrubber.text(VALUE) != VALUE
    del kh
    gc.collect()
    assert scrubber.text(VALUE) == VALUE
    assert len(scrubber._of_clients) == 0


def test_what_a_client_holds_is_bounded():
    kh = client()
    for number in range(1000):
        kh.fetched.note(f"value-{number:06}")
    assert len(kh.fetched.values()) == 512
    assert VALUE not in repr(kh.fetched)
    scrubber = LogScrubber(shapes=False)
    assert scrubber.text("value-000999") == "************"
    assert scrubber.text("value-000001") == "value-000001"


def test_whether_somebody_listens_is_known():
    gc.collect()
    before = len(fetched._listeners)
    scrubber = LogScrubber()
    assert fetched.is_heard()
    assert len(fetched._listeners) == before + 1
    del scrubber
    gc.collect()
    assert len(fetched._listeners) == before
