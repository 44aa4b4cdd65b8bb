"""The server name of a ClientHello, of real clients and of none."""

import random
import ssl

import pytest

from keyhole.net.hello import HelloReader, NotAHello, server_name


def hello(name, **options):
    context = ssl.create_default_context()
    for key, value in options.items():
        setattr(context, key, value)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("name", ["api.example.com", "xn--bcher-kva.example", None])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_is_read_as_soon_as_the_message_is_complete(name, version):
    data = hello(name, maximum_version=version)
    assert server_name(data) == (name or "")
    assert server_name(data + b"more") == (name or "")
    assert {server_name(data[:end]) for end in range(len(data))} == {None}


def test_a_message_in_several_records_is_one():
    data = hello("api.example.com")
    head, message = data[:3], data[5:]
    for size in (1, 7, 100):
        parts = [message[at : at + size] for at in range(0, len(message), size)]
        assert server_name(b"".join(head + len(part).to_bytes(2, "big") + part for part in parts)) == "api.example.com"


class Counted(bytes):
    """Bytes that count how often they were looked at."""

    looks = 0

    def __getitem__(self, key):
        Counted.looks += 1
        return super().__getitem__(key)


def dribbled(message):
    """What a hostile client has sent after each of its pieces: records of one byte, and little at a time."""
    records = b"".join(b"\x16\3\1\0\1" + bytes((byte,)) for byte in message)
    return [Counted(records[:end]) for end in range(16, len(records) + 16, 16)]


def test_a_message_that_comes_in_tiny_records_and_pieces_is_not_read_again_for_each():
    Counted.looks = 0
    body = hello("api.example.com")[9:] + bytes(3000)  # whatever follows the extensions
    sent = dribbled(b"\1" + len(body).to_bytes(3, "big") + body)
    reader = HelloReader()
    assert {reader.server_name(data) for data in sent[:-1]} == {None}
    with pytest.raises(NotAHello):
        reader.server_name(sent[-1])
    assert Counted.looks < 200 * len(body)


def test_whatever_is_sent_is_a_name_or_none_or_refused():
    data = hello("api.example.com")
    chance = random.Random(7)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            name = server_name(bytes(changed[: chance.randint(0, len(changed))]))
        except NotAHello:
            continue
        assert name is None or name.isascii()


def test_a_second_name_or_another_message_is_refused():
    data = hello("api.example.com", maximum_version=ssl.TLSVersion.TLSv1_2)
    at = (
        data.index(b"api.example.com") - 9
    )  # kind and length of the extension, length of the list, kind and of the name
    extension = data[at : at + 9 + len("api.example.com")]
    body = data[5 + 4 :]
    start = at - 9
    before = 2 + 32 + 1 + body[34]
    before += 2 + int.from_bytes(body[before : before + 2], "big")
    before += 1 + body[before]
    length = int.from_bytes(body[before : before + 2], "big") + len(extension)
    twice = body[:before] + length.to_bytes(2, "big") + body[before + 2 : start] + extension + body[start:]
    message = b"\x01" + len(twice).to_bytes(3, "big") + twice
    with pytest.raises(NotAHello):
        server_name(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
    for wrong in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\0\0", b"\x15\x03\x01\0\x02\x02\x28", b"\x16\x02\0\0\x01\x01"):
        with pytest.raises(NotAHello):
            server_name(wrong)
