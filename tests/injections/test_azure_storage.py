"""Azure Storage: what is signed is what its documentation shows."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Terms, inject
from keyhole.injections.azure_storage import table_text, text_to_sign

RAW = bytes(range(64))
FIELDS = {"account_name": b"myaccount", "account_key": base64.b64encode(RAW)}
NOW = datetime(2015, 6, 26, 23, 39, 12, tzinfo=UTC).timestamp()
DATE = b"Fri, 26 Jun 2015 23:39:12 GMT"
HOST = "myaccount.blob.core.windows.net"


def blob(method: str, target: bytes, *headers: tuple[bytes, bytes]) -> Message:
    return Message(method, "https", HOST, 443, target, [(b"x-ms-version", b"2015-02-21"), *headers])


def signed(message: Message, **options: str) -> Message:
    return next(inject(message, Inject.from_data({"kind": "azure-storage", **options}), Terms(FIELDS, NOW)))


def test_a_request_is_signed_as_in_the_documentation():
    sent = signed(blob("GET", b"/mycontainer?restype=container&comp=metadata&timeout=20"))
    text = (
        b"GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        b"/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )
    expected = base64.b64encode(hmac.new(RAW, text, hashlib.sha256).digest())
    assert sent.get(b"authorization") == b"SharedKey myaccount:" + expected
    assert RAW in sent.forms


def test_lists_and_lengths_are_signed_as_in_the_documentation():
    target = b"/mycontainer?restype=container&comp=list&include=snapshots&include=metadata&include=uncommittedblobs"
    text = text_to_sign(blob("GET", target), b"myaccount")
    assert text.endswith(
        b"\n/myaccount/mycontainer\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container"
    )
    message = blob("PUT", b"/c/a%20b", (b"content-type", b"text/plain"), (b"x-ms-meta-b", b" x   y "), (b"range", b"r"))
    message.length = 5
    lines = text_to_sign(message, b"myaccount").split(b"\n")
    assert lines[:12] == [b"PUT", b"", b"", b"5", b"", b"text/plain", b"", b"", b"", b"", b"", b"r"]
    assert lines[12:] == [b"x-ms-meta-b:x y", b"x-ms-version:2015-02-21", b"/myaccount/c/a%20b"]
    message.length = 0
    assert text_to_sign(message, b"myaccount").split(b"\n")[3] == b""


def test_tables_have_a_form_of_their_own():
    message = Message("GET", "https", "a.table.core.windows.net", 443, b"/T?comp=acl&$top=1", [(b"x-ms-date", DATE)])
    assert table_text(message, b"a") == b"GET\n\n\n" + DATE + b"\n/a/T?comp=acl"
    plain = signed(blob("GET", b"/T")).get(b"authorization")
    assert signed(blob("GET", b"/T"), storage="table").get(b"authorization") != plain


def test_what_the_client_signed_is_gone_and_an_old_date_with_it():
    old = (b"x-ms-date", b"Fri, 26 Jun 2015 20:00:00 GMT")
    sent = signed(blob("GET", b"/", old, (b"authorization", b"SharedKey placeholder:AAAA")))
    assert [value for name, value in sent.headers if name == b"x-ms-date"] == [DATE]
    assert b"placeholder" not in (sent.get(b"authorization") or b"")
    near = (b"x-ms-date", b"Fri, 26 Jun 2015 23:38:00 GMT")
    assert signed(blob("GET", b"/", near)).get(b"x-ms-date") == near[1]
    assert signed(blob("GET", b"/", (b"x-ms-date", b"\xff soon"))).get(b"x-ms-date") == DATE


def test_a_shared_access_signature_cannot_be_made_again():
    with pytest.raises(InvalidRequest, match="shared access"):
        signed(blob("GET", b"/c/b?sv=2020-01-01&sig=AAAA"))


@pytest.mark.parametrize(
    "fields",
    [{"value": b"x"}, {"account_name": b"A:B", "account_key": b"AAAA"}, {"account_name": b"abc", "account_key": b"!!"}],
)
def test_an_account_that_cannot_be_is_refused(fields):
    with pytest.raises(InvalidRequest):
        next(inject(blob("GET", b"/"), Inject.from_data({"kind": "azure-storage"}), Terms(fields, NOW)))
