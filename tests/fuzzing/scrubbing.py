"""The scrubber: no value and no form of one passes, however it arrives, and what has none passes unchanged."""

import base64
import json

from fuzzing.corpora import lines
from fuzzing.engine import Target, cut
from keyhole.scrub import Scrubber, too_short
from scrub.decoders import shows
from scrub.test_stream import FORMS

SECRETS = (
    b"vk-canary_7Hq4LyjWDarjtT1zdp7dcAx+/=Qz~9!",
    b"ghp_7Hq4LyjWDarjtT1zdp7dcAx+/=Qz~9!k",
    'p@ss "w\\ord"\n2 <\u00e9&\u043a\u043b\u044e\u0447>'.encode(),
    b"aabbaabbaabbaabc",
    b"%41%42&lt;x\\u0041yz",
    b"correct horse+battery/staple",
    b"AAAABBBBCCCCDDDD",
)
_NAMES = sorted(set(FORMS) - {"html-names"})
_BEGUN = 6  # bytes of a value that say nothing yet


class Scrub(Target):
    """Texts with a value in them, in some form, at some place; and the same text without it."""

    words = (
        b"%", b"%2", b"%25", b"\\", b"\\u00", b"\\\\", b"&", b"&#", b"&#x", b"&amp;", b"\n", b"\r\n", b"=\r\n",
        b"AAAA", b"====", b'"', b'{"a":"', b"\xff\x00", b"+", b" ", b"\\n", b"\\/", b"00", b"vk-can", b"ghp_7H",
        b"dmstY2Fu", b"Z2hwXzd", b"*" * 8,
    )  # fmt: skip

    def __init__(self):
        self._scrubbers = {value: Scrubber.compile([value]) for value in SECRETS}
        assert not any(map(too_short, SECRETS))

    def corpus(self):
        found = [base64.b64decode(case["body_b64"]) for case in lines("redaction/response_cases.jsonl")]
        texts = [b"", b"plain text\n", json.dumps({"a": ["b", 1]}).encode(), b"data: {}\n\n" * 3, bytes(range(256))]
        # What is compressed is opened before it comes here.
        plain = [
            each for each in found if len(each) <= 2000 and not any(shows(each, value, depth=2) for value in SECRETS)
        ]
        return plain + texts

    def check(self, data, rng):
        value = rng.choice(SECRETS)
        scrubber = self._scrubbers[value]
        names = [rng.choice(_NAMES) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
        sent = data
        for name in names:
            at = rng.randint(0, len(data))
            sent = sent[:at] + FORMS[name](value) + sent[at:]
        got = [self._streamed(scrubber, pieces) for pieces in ([sent], cut(sent, rng), cut(sent, rng))]
        for each in (*got, scrubber.text(sent)):
            assert len(each) == len(sent), "the length has changed"
            assert all(new in (old, 42) for new, old in zip(each, sent, strict=True)), "more than a mask was put in"
            assert not shows(each, value, depth=1), f"the value can be read: {names}"
        if not names and not any(shows(data, part, depth=2) for part in (value[:12], value[1:12], value[-12:])):
            assert got[0] == sent or _resembles(sent, value), "what has no value in it was changed"
        return f"{len(names)} {'masked' if got[0] != sent else 'unchanged'} {'+'.join(sorted(names)[:1])}"

    @staticmethod
    def _streamed(scrubber, pieces):
        stream = scrubber.stream()
        return b"".join([stream.feed(piece) for piece in pieces]) + stream.finish()


def _resembles(text, value):
    """Whether a beginning of the value, or of a form of it, is in a text that the corpus was mixed from."""
    begun = value[:_BEGUN]
    lists = [joint.join(map(spelled, begun)) for spelled in (str, hex) for joint in (", ", ",")]
    if any(FORMS[name](value)[:_BEGUN] in text for name in _NAMES) or begun.lower() in text.lower():
        return True
    return any(each.encode() in text for each in lists)
