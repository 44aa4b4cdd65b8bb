"""Signed chunks of a body are signed again while it streams, however it is cut."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.crypto.sigv4 import Signer
from keyhole.injections import Terms, inject
from keyhole.injections.sigv4.chunked import LONGEST_CHUNK, SIGNED, SIGNED_TRAILER, Chunks

# The example of "Signature calculations for the Authorization header: transferring payload in multiple chunks".
SECRET = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EXAMPLE = Signer.derive(SECRET, "20130524T000000Z", "us-east-1", "s3")
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
SIGNATURES = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
]
# And of the one with trailing headers.
TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
TRAILER_SIGNATURES = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
]
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
FAKE = "f" * 64


def encoded(chunks: list[bytes], trailers: list[str] | None = None, *, gap: bool = False) -> bytes:
    """A body as a client with other keys sends it."""
    parts = [b"%x;chunk-signature=%b\r\n%b\r\n" % (len(chunk), FAKE.encode(), chunk) for chunk in chunks]
    parts.append(b"0;chunk-signature=%b\r\n" % FAKE.encode())
    if trailers is not None:
        parts += [b"\r\n"] if gap else []
        parts += [f"{trailer}\r\n".encode() for trailer in trailers]
        parts.append(b"x-amz-trailer-signature:%b\r\n" % FAKE.encode())
    return b"".join([*parts, b"\r\n"])


def resigned(body: bytes, signer: Signer, seed: str, cuts: list[int] | None = None, *, trailer: bool = False) -> bytes:
    recoder = Chunks(signer, seed, trailer=trailer)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts or ()), len(body)]
    pieces = [recoder.feed(body[a:b]) for a, b in itertools.pairwise(places)]
    sent = b"".join([*pieces, recoder.finish()])
    assert len(sent) == recoder.length(len(body)) == len(body)
    return sent


def found(sent: bytes) -> list[str]:
    return [signature.decode() for signature in re.findall(rb";chunk-signature=([0-9a-f]{64})\r\n", sent)]


def test_signatures_are_those_of_the_example():
    body = encoded([b"a" * 65536, b"a" * 1024])
    assert found(resigned(body, EXAMPLE, SEED)) == SIGNATURES


def test_signatures_with_a_trailer_are_those_of_the_example():
    body = encoded([b"a" * 65536, b"a" * 1024], ["x-amz-checksum-crc32c:sOO8/Q=="])
    sent = resigned(body, EXAMPLE, TRAILER_SEED, trailer=True)
    assert found(sent) == TRAILER_SIGNATURES
    assert sent.endswith(f"\r\nx-amz-trailer-signature:{TRAILER_SIGNATURE}\r\n\r\n".encode())


def verify(sent: bytes, key: bytes, seed: str, *, trailer: bool) -> bytes:
    """Read a body as a server does that was written for this test, and give back its data."""

    def sign(kind: str, *parts: str) -> str:
        text = "\n".join([kind, "20130524T000000Z", "20130524/us-east-1/s3/aws4_request", *parts])
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    data, last, empty = b"", seed, hashlib.sha256().hexdigest()
    while True:
        head, sent = sent.split(b"\r\n", 1)
        size, signature = head.decode().split(";chunk-signature=")
        chunk, sent = sent[: int(size, 16)], sent[int(size, 16) :]
        last = sign("AWS4-HMAC-SHA256-PAYLOAD", last, empty, hashlib.sha256(chunk).hexdigest())
        assert signature == last
        data += chunk
        if not chunk:
            break
        assert sent.startswith(b"\r\n")
        sent = sent[2:]
    if trailer:
        lines = sent.removeprefix(b"\r\n").removesuffix(b"\r\n\r\n").split(b"\r\n")
        pairs = [line.decode().split(":", 1) for line in lines]
        name, signature = pairs.pop()
        text = "".join(f"{name.lower()}:{value.strip()}\n" for name, value in pairs)
        assert name == "x-amz-trailer-signature"
        assert signature == sign("AWS4-HMAC-SHA256-TRAILER", last, hashlib.sha256(text.encode()).hexdigest())
    else:
        assert sent == b"\r\n"
    return data


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    trailers=st.none() | st.lists(st.sampled_from(["x-amz-checksum-crc32:AAAAAA==", "X-Amz-Meta-A: b c "]), max_size=2),
    gap=st.booleans(),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_every_chunk_is_signed_whatever_the_reads_were(chunks, trailers, gap, cuts):
    body = encoded(chunks, trailers, gap=gap)
    sent = resigned(body, EXAMPLE, SEED, cuts, trailer=trailers is not None)
    assert verify(sent, EXAMPLE.key, SEED, trailer=trailers is not None) == b"".join(chunks)
    assert FAKE.encode() not in sent


def test_no_more_than_a_chunk_is_held():
    body = encoded([bytes(65536)] * 64)
    recoder = Chunks(EXAMPLE, SEED, trailer=False)
    given = sent = 0
    for at in range(0, len(body), 1000):
        piece = body[at : at + 1000]
        given += len(piece)
        sent += len(recoder.feed(piece))
        assert given - sent < 65536 + 200
    recoder.finish()
    assert sent == len(body)


@pytest.mark.parametrize(
    "body",
    [
        b"plain text, no chunks at all\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"x" * 5000,
        b"4;chunk-signature=" + b"f" * 63 + b"\r\nabcd\r\n",
        b"3;chunk-signature=" + b"f" * 64 + b"\r\nabcd\r\n",
        encoded([b"abc"]) + b"more",
        encoded([b"abc"])[:-1],
        encoded([b"abc"])[:-30],
        b"",
        b"%x;chunk-signature=%b\r\n" % (LONGEST_CHUNK + 1, FAKE.encode()),
    ],
)
def test_a_body_in_another_form_is_refused(body):
    with pytest.raises(InvalidRequest):
        resigned(body, EXAMPLE, SEED)


@pytest.mark.parametrize(
    "body",
    [
        encoded([b"abc"]),
        encoded([b"abc"], ["no colon"]),
        encoded([b"abc"], ["a:b"] * 17),
        encoded([b"abc"], ["a:" + "b" * 2000]),
        encoded([b"abc"], ["a:b"]).replace(b"f\r\n\r\n", b"\r\n\r\n"),
    ],
)
def test_a_trailer_in_another_form_is_refused(body):
    with pytest.raises(InvalidRequest):
        resigned(body, EXAMPLE, SEED, trailer=True)


@pytest.mark.parametrize("word", [SIGNED, SIGNED_TRAILER])
def test_the_signature_of_the_request_is_where_its_chunks_begin(word):
    authorization = b"AWS4-HMAC-SHA256 Credential=x/20130524/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    headers = [(b"authorization", authorization), (b"x-amz-content-sha256", word.encode())]
    headers.append((b"x-amz-date", b"20130524T000000Z"))
    message = Message("PUT", "https", "examplebucket.s3.amazonaws.com", 443, b"/k", headers)
    values = {"access_key_id": b"AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET}
    sent = next(inject(message, Inject.from_data({"kind": "sigv4"}), Terms(values, 1369353600)))
    assert sent.recode is not None
    seed = (sent.get(b"authorization") or b"").decode()[-64:]
    trailer = word == SIGNED_TRAILER
    body = sent.recode.feed(encoded([b"data"], ["a:b"] if trailer else None))
    assert verify(body, EXAMPLE.key, seed, trailer=trailer) == b"data"
