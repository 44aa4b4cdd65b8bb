"""Bytes that a server gives back in base64: no credential in them, however lenient the client is that reads them."""

import base64
import gzip

import pytest

from keyhole.core.errors import ScrubFailedClosed
from keyhole.faces.mcp.gateway.cleaned import Cleaner
from keyhole.scrub import Scrubber

VALUES = (b"sk_live_Zm9vYmFyQ7xW2pLk", b"4915028374650918")
ESCAPED = "".join(f"\\u{byte:04x}" for byte in VALUES[0]).encode()
SPELLED = {
    "strict": base64.b64encode,
    "in lines": base64.encodebytes,
    "in short lines": lambda raw: b"\r\n".join(base64.b64encode(raw)[at : at + 10] for at in range(0, 400, 10)),
    "without padding": lambda raw: base64.b64encode(raw).rstrip(b"="),
    "of the other alphabet": base64.urlsafe_b64encode,
    "with spaces": lambda raw: b" \t" + base64.b64encode(raw) + b"\n",
}
PLACES = {
    "image": lambda text: {"type": "image", "mimeType": "image/png", "data": text},
    "sound": lambda text: {"type": "audio", "mimeType": "audio/wav", "data": text},
    "resource": lambda text: {"type": "resource", "resource": {"uri": "x://y", "blob": text}},
}


def shown(raw, spelling, place):
    """The bytes that a lenient client has, and the text as it stands."""
    answer = {"content": [PLACES[place](SPELLED[spelling](raw).decode())]}
    [block] = Cleaner(Scrubber.compile(VALUES)).value(answer)["content"]
    text = block.get("data") or block["resource"]["blob"]
    plain = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4)), text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spelling", SPELLED)
def test_a_credential_in_bytes_is_masked_however_they_are_spelled(spelling, place):
    for value in VALUES:
        found, _ = shown(b"\xff\xfb\xfe" + value + b"\xff", spelling, place)
        assert found == b"\xff\xfb\xfe" + b"*" * len(value) + b"\xff"
    found, _ = shown(b'{"a":"' + ESCAPED + b'"}', spelling, place)
    assert set(found) <= set(b'{"a":"*"}')


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spelling", SPELLED)
def test_bytes_without_a_credential_stay_as_they_were_spelled(spelling, place):
    raw = bytes(range(256)) + b"\x00" * 16
    assert shown(raw, spelling, place) == (raw, SPELLED[spelling](raw).decode())
    packed = gzip.compress(raw, mtime=0)
    assert shown(packed, spelling, place) == (packed, SPELLED[spelling](packed).decode())


@pytest.mark.parametrize("value", VALUES)
def test_a_credential_that_looks_like_base64_is_masked_as_it_stands(value):
    for place in PLACES.values():
        answer = {"content": [place(value.decode())]}
        assert value.decode() not in str(Cleaner(Scrubber.compile(VALUES)).value(answer))


def test_what_is_compressed_with_a_credential_in_it_is_withheld():
    packed = base64.b64encode(gzip.compress(b"key=" + VALUES[0])).decode()
    with pytest.raises(ScrubFailedClosed):
        Cleaner(Scrubber.compile(VALUES)).value({"content": [PLACES["resource"](packed)]})
