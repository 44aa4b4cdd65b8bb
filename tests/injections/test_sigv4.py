"""What botocore signed with placeholder keys is signed again as botocore signs it with the real ones."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote, urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import assume, given
from hypothesis import strategies as st

from keyhole.core.errors import BadRequestFraming, InvalidRequest, PolicyDenied
from keyhole.core.host import parse_authority
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.target import canonical_target
from keyhole.injections import Terms, inject, needs_content

NOW = datetime(2026, 5, 17, 10, 30, 15, tzinfo=UTC)
ID, KEY, TOKEN = "AKIAREALREALREAL0001", "real/secret+key/0123456789abcdefghijklmn", "real//token+/=="
FIELDS = {"access_key_id": ID.encode(), "secret_access_key": KEY.encode()}
REAL = Credentials(ID, KEY)
REAL_SESSION = Credentials(ID, KEY, TOKEN)
FAKE = Credentials("AKIAPLACEHOLDER00001", "placeholder")
FAKE_SESSION = Credentials("AKIAPLACEHOLDER00001", "placeholder", "placeholder-token")

HEADERS = auth.S3SigV4Auth, auth.SigV4Auth
SERVICES = {
    "s3": ("https://bucket.s3.eu-central-1.amazonaws.com", auth.S3SigV4Auth),
    "s3 at a place of its own": ("https://minio.test:9000", auth.S3SigV4Auth),
    "s3 in clear": ("http://minio.test:9000", auth.S3SigV4Auth),
    "sts": ("https://sts.amazonaws.com", auth.SigV4Auth),
    "dynamodb": ("https://dynamodb.eu-central-1.amazonaws.com", auth.SigV4Auth),
    "execute-api": ("https://abc.execute-api.eu-central-1.amazonaws.com", auth.SigV4Auth),
    "sqs": ("https://sqs.eu-central-1.amazonaws.com", auth.SigV4Auth),
}

segments = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
queries = st.lists(st.tuples(texts.filter(bool), texts), max_size=5)
values = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=6)
spaced = st.lists(values, min_size=1, max_size=3).map("   ".join)
names = st.sampled_from(["X-Amz-Meta-One", "x-amz-acl", "X-Amz-Target", "Content-Type", "X-Custom", "Range"])


def at(moment: datetime):
    return mock.patch("botocore.auth.get_current_datetime", return_value=moment.replace(tzinfo=None))


def request(base: str, method: str, path: list[str], query: list[tuple[str, str]], headers, body: bytes) -> AWSRequest:
    target = "/" + "/".join(quote(part, safe="~") for part in path)
    if query:
        target += "?" + "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    made = AWSRequest(method, base + target, data=body)
    for name, value in headers:
        made.headers[name] = value
    return made


def on_the_wire(sent: AWSRequest, body: bytes = b"") -> Message:
    """As the road gets it: the target judged, the host apart."""
    url = urlsplit(sent.url)
    authority = parse_authority(url.netloc, 443 if url.scheme == "https" else 80)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = [(name.lower().encode(), value.encode()) for name, value in sent.headers.items()]
    message = Message(sent.method, url.scheme, authority.host, authority.port, target.encode(), headers)
    assert canonical_target(message.target) == message.target
    message.content = body or None
    return message


def signed_again(message: Message, *, token: bool = False, now: datetime = NOW, **options) -> Message:
    how = Inject.from_data({"kind": "sigv4", **options})
    content, message.content = message.content, None
    if needs_content(message, how):
        message.content = content
    fields = FIELDS | ({"session_token": TOKEN.encode()} if token else {})
    return next(inject(message, how, Terms(fields, now.timestamp())))


def both(
    signer, service: str, message: AWSRequest, again: AWSRequest, *, fake_token: bool, token: bool, **more
) -> None:
    scope = (service.partition(" ")[0], "eu-central-1")
    with at(NOW):
        signer(FAKE_SESSION if fake_token else FAKE, *scope, **more).add_auth(message)
        signer(REAL_SESSION if token else REAL, *scope, **more).add_auth(again)


@given(
    service=st.sampled_from(sorted(SERVICES)),
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    path=st.lists(segments, max_size=3),
    query=queries,
    headers=st.lists(st.tuples(names, spaced), max_size=4),
    body=st.binary(max_size=30),
    fake_token=st.booleans(),
    token=st.booleans(),
)
def test_a_signature_in_a_header_is_the_one_that_botocore_makes_with_the_real_key(
    service, method, path, query, headers, body, fake_token, token
):
    base, signer = SERVICES[service]
    message, expected = (request(base, method, path, query, headers, body) for _ in range(2))
    both(signer, service, message, expected, fake_token=fake_token, token=token)
    try:
        wire = on_the_wire(message, body)
    except (InvalidRequest, BadRequestFraming, AssertionError):
        assume(False)
    sent = signed_again(wire, token=token)
    want = on_the_wire(expected)
    assert sent.get(b"authorization") == want.get(b"authorization")
    assert sorted(sent.headers) == sorted(want.headers)
    assert sent.target == want.target


@pytest.mark.parametrize("service", ["s3", "sts"])
@pytest.mark.parametrize("path", [["", "a", "", "b"], ["a", "", ""], ["a%20b", "c%2Fd"], ["https:", "", "e.test"]])
def test_a_path_with_several_meanings_is_signed_as_botocore_signs_it(service, path):
    base, signer = SERVICES[service]
    message, expected = (request(base, "GET", path, [], [], b"") for _ in range(2))
    both(signer, service, message, expected, fake_token=False, token=False)
    assert signed_again(on_the_wire(message)).get(b"authorization") == on_the_wire(expected).get(b"authorization")


@given(
    service=st.sampled_from(["s3", "s3 at a place of its own", "sts"]),
    method=st.sampled_from(["GET", "PUT"]),
    path=st.lists(segments, max_size=3),
    query=st.dictionaries(texts.filter(bool), texts.filter(bool), max_size=3),
    headers=st.lists(
        st.tuples(st.sampled_from(["x-amz-acl", "X-Custom"]), spaced), max_size=2, unique_by=lambda h: h[0]
    ),
    expires=st.integers(1, 604800),
    fake_token=st.booleans(),
    token=st.booleans(),
)
def test_a_presigned_url_is_the_one_that_botocore_makes_with_the_real_key(
    service, method, path, query, headers, expires, fake_token, token
):
    assume(not any(name.lower().startswith(("x-amz-", "x-goog")) for name in query))
    base, signer = SERVICES[service]
    presigner = auth.S3SigV4QueryAuth if signer is auth.S3SigV4Auth else auth.SigV4QueryAuth
    message, expected = (request(base, method, path, list(query.items()), headers, b"") for _ in range(2))
    both(presigner, service, message, expected, fake_token=fake_token, token=token, expires=expires)
    try:
        wire = on_the_wire(message)
    except (InvalidRequest, BadRequestFraming, AssertionError):
        assume(False)
    sent = signed_again(wire, token=token)
    assert sent.target == on_the_wire(expected).target
    assert sent.get(b"authorization") is None


def simple(service: str = "s3", *, method: str = "GET", target: str = "/b/k", headers=(), body: bytes = b"") -> Message:
    base, signer = SERVICES[service]
    made = AWSRequest(method, base + target, data=body)
    for name, value in headers:
        made.headers[name] = value
    with at(NOW):
        signer(FAKE, service.partition(" ")[0], "eu-central-1").add_auth(made)
    return on_the_wire(made, body)


def presigned(expires: int = 600) -> Message:
    made = AWSRequest("GET", "https://minio.test:9000/b/k")
    with at(NOW):
        auth.S3SigV4QueryAuth(FAKE, "s3", "eu-central-1", expires=expires).add_auth(made)
    return on_the_wire(made)


def oracle(sent: Message, service: str, moment: datetime) -> str:
    """The Authorization header that botocore makes for a message as it is sent."""
    host = sent.host if sent.port in {80, 443} else f"{sent.host}:{sent.port}"
    made = AWSRequest(sent.method, f"{sent.scheme}://{host}{sent.target.decode()}", data=sent.content or b"")
    covered = (sent.get(b"authorization") or b"").decode().partition("SignedHeaders=")[2].partition(",")[0].split(";")
    for name, value in sent.headers:
        if name.decode() in covered and name != b"x-amz-date":
            made.headers[name.decode()] = value.decode()
    with at(moment):
        auth.SigV4Auth(REAL, service, "eu-central-1").add_auth(made)
    return made.headers["Authorization"]


def test_an_old_date_is_replaced_and_a_near_one_stands():
    late = NOW.replace(hour=11)
    sent = signed_again(simple("dynamodb", method="POST", body=b"{}"), now=late)
    assert sent.get(b"x-amz-date") == b"20260517T113015Z"
    assert (sent.get(b"authorization") or b"").decode() == oracle(sent, "dynamodb", late)
    soon = NOW.replace(minute=33)
    assert signed_again(simple(), now=soon).get(b"x-amz-date") == b"20260517T103015Z"


def test_only_what_is_still_there_is_signed_and_every_header_of_aws():
    message = simple("dynamodb", method="POST", headers=[("X-Custom", "1"), ("X-Gone", "2")], body=b"{}")
    message.remove(b"x-gone")
    message.headers += [(b"x-amz-late", b"3"), (b"user-agent", b"x"), (b"via", b"1.1 keyhole")]
    sent = signed_again(message)
    assert b"SignedHeaders=host;x-amz-date;x-amz-late;x-custom," in (sent.get(b"authorization") or b"")
    assert (sent.get(b"authorization") or b"").decode() == oracle(sent, "dynamodb", NOW)


def test_headers_that_are_written_after_signing_are_not_signed():
    message = simple(headers=[("Content-Length", "5"), ("Transfer-Encoding", "chunked")])
    assert b"length" not in (signed_again(message).get(b"authorization") or b"")
    assert b"transfer" not in (signed_again(message).get(b"authorization") or b"")


@pytest.mark.parametrize(
    ("service", "sent", "signed"),
    [
        ("s3", "/b/a(1)'!$&+,;=:@*", "/b/a%281%29%27%21%24%26%2B%2C%3B%3D%3A%40%2A"),
        ("s3", "/b/a%2Fb%20c", "/b/a/b%20c"),
        ("dynamodb", "/a%20b/(1)", "/a%2520b/%281%29"),
        ("s3", "/b?prefix=a/b&x=1+2&flag&a=%c3%a9", "/b?a=%C3%A9&flag=&prefix=a%2Fb&x=1%202"),
        ("s3", "/b?b=2&a=2&a=1&&B=3", "/b?B=3&a=1&a=2&b=2"),
    ],
)
def test_what_a_client_left_unencoded_is_signed_as_the_service_encodes_it(service, sent, signed):
    message = simple(service, target=sent)
    again = signed_again(message)
    assert again.target.decode() == sent
    path, _, query = signed.partition("?")
    headers = f"host:{'bucket.s3' if service == 's3' else service}.eu-central-1.amazonaws.com\n"
    covered = "host;x-amz-content-sha256;x-amz-date" if service == "s3" else "host;x-amz-date"
    empty = hashlib.sha256(b"").hexdigest()
    headers += (f"x-amz-content-sha256:{empty}\n" if service == "s3" else "") + "x-amz-date:20260517T103015Z\n"
    canonical = f"GET\n{path}\n{query}\n{headers}\n{covered}\n{empty}"
    made = AWSRequest("GET", "https://unused.test/")
    made.context["timestamp"] = "20260517T103015Z"
    signer = auth.SigV4Auth(REAL, service, "eu-central-1")
    signature = signer.signature(signer.string_to_sign(made, canonical), made)
    assert (again.get(b"authorization") or b"").decode().endswith(f"Signature={signature}")


def test_the_word_of_the_client_for_its_body_is_signed_and_the_body_is_not_held():
    for word in ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "0" * 64):
        message = simple(headers=[], method="PUT", body=b"abc")
        message.set(b"x-amz-content-sha256", word.encode())
        assert not needs_content(message, Inject.from_data({"kind": "sigv4"}))
        sent = signed_again(message)
        assert sent.get(b"x-amz-content-sha256") == word.encode()
        assert (sent.get(b"authorization") or b"").decode() == oracle_s3(sent)
        assert sent.recode is None


def oracle_s3(sent: Message) -> str:
    signer = auth.S3SigV4Auth(REAL, "s3", "eu-central-1")
    word = (sent.get(b"x-amz-content-sha256") or b"").decode()
    with mock.patch.object(signer, "payload", return_value=word), at(NOW):
        made = AWSRequest(sent.method, f"https://{sent.host}{sent.target.decode()}")
        signer.add_auth(made)
    return made.headers["Authorization"]


@pytest.mark.parametrize("service", ["dynamodb", "sts", "sqs", "execute-api"])
def test_a_body_that_nobody_hashed_is_held(service):
    message = simple(service, method="POST", body=b"abc")
    assert needs_content(message, Inject.from_data({"kind": "sigv4"}))


@pytest.mark.parametrize("options", [{"region": "us-east-1"}, {"service": "sts"}])
def test_a_scope_other_than_the_pinned_one_is_refused(options):
    with pytest.raises(InvalidRequest, match="only"):
        signed_again(simple(), **options)
    signed_again(simple(), region="eu-central-1", service="s3")


def test_a_request_that_nobody_signed_is_signed_where_region_and_service_are_known():
    def plain(host: str) -> Message:
        return Message("GET", "https", host, 443, b"/x", [(b"authorization", b"Bearer something")])

    sent = signed_again(plain("abc.execute-api.eu-central-1.amazonaws.com"))
    assert (sent.get(b"authorization") or b"").decode() == oracle(sent, "execute-api", NOW)
    sent = signed_again(plain("minio.test"), region="eu-central-1", service="execute-api")
    assert (sent.get(b"authorization") or b"").decode() == oracle(sent, "execute-api", NOW)
    assert (
        signed_again(plain("minio.test"), region="a", service="s3").get(b"x-amz-content-sha256") == b"UNSIGNED-PAYLOAD"
    )
    with pytest.raises(InvalidRequest, match="which AWS service"):
        signed_again(plain("minio.test"), region="eu-central-1")


def test_a_service_may_insist_on_the_key_id_of_its_clients():
    signed_again(simple(), client=FAKE.access_key)
    for message in (simple(), Message("GET", "https", "s3.amazonaws.com", 443, b"/", [])):
        with pytest.raises(InvalidRequest, match="access key id"):
            signed_again(message, client="AKIASOMEBODYELSE0001")


def test_a_presigned_url_lives_no_longer_than_the_service_says():
    assert b"X-Amz-Expires=60&" in signed_again(presigned(600), expires=60).target
    assert b"X-Amz-Expires=600&" in signed_again(presigned(600), expires=3600).target


def test_a_presigned_url_keeps_its_date_however_late_it_is_used():
    assert b"X-Amz-Date=20260517T103015Z" in signed_again(presigned(), now=NOW.replace(day=20)).target


def test_signatures_of_version_2_become_version_4():
    made = AWSRequest("GET", "https://s3.amazonaws.com/b/k?versionId=1")
    with mock.patch("time.time", return_value=NOW.timestamp()), at(NOW):
        auth.HmacV1QueryAuth(FAKE_SESSION, expires=60).add_auth(made)
    sent = signed_again(on_the_wire(made))
    assert sent.target == b"/b/k?versionId=1"
    assert b"/us-east-1/s3/aws4_request" in (sent.get(b"authorization") or b"")
    with pytest.raises(InvalidRequest, match="expired"):
        signed_again(on_the_wire(made), now=NOW.replace(minute=40))
    with at(NOW):
        made = AWSRequest("GET", "https://s3.amazonaws.com/b/k?signature=mine&expires=7")
        auth.HmacV1Auth(FAKE).add_auth(made)
    assert signed_again(on_the_wire(made)).target == b"/b/k?signature=mine&expires=7"


def test_parameters_of_an_api_that_sound_like_a_signature_stay():
    target = "/x?Signature=1&Expires=2&Expires=3&AWSAccessKeyId=4"
    assert signed_again(simple("execute-api", target=target)).target == target.encode()


@pytest.mark.parametrize(
    "value",
    [
        "AWS4-HMAC-SHA256 Credential=x/20260517/eu/s3/aws4_request",
        "AWS4-HMAC-SHA256 Credential=x/2026/eu/s3/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential=x/20260517/eu/s3/aws4, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential=x/20260517/e u/s3/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential=x/20260517/eu/s3/aws4_request, SignedHeaders=ho st, Signature=0",
        "AWS4-HMAC-SHA256 Credential=x/20260517/eu/s3/aws4_request, SignedHeaders=, Signature=0",
        "AWS4-HMAC-SHA256 Credential=a/20260517/eu/s3/aws4_request, Credential=b, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA512 Credential=x/20260517/eu/s3/aws4_request, SignedHeaders=host, Signature=0",
    ],
)
def test_a_signature_that_cannot_be_read_is_refused(value):
    with pytest.raises(InvalidRequest, match="AWS"):
        signed_again(Message("GET", "https", "minio.test", 443, b"/", [(b"authorization", value.encode())]))


@pytest.mark.parametrize(
    "change",
    [
        lambda target: target + b"&X-Amz-Signature=0",
        lambda target: target + b"&x-amz-credential=0",
        lambda target: target.replace(b"X-Amz-Expires=600", b"X-Amz-Expires=604801"),
        lambda target: target.replace(b"X-Amz-Expires=600", b"X-Amz-Expires=0"),
        lambda target: target.replace(b"X-Amz-Date=2026", b"X-Amz-Date=20x6"),
        lambda target: target.replace(b"X-Amz-Algorithm=AWS4", b"X-Amz-Algorithm=AWS5"),
        lambda target: target.replace(b"X-Amz-Credential", b"X-Credential"),
    ],
)
def test_a_presigned_url_that_cannot_be_read_in_one_way_is_refused(change):
    message = presigned()
    message.target = change(message.target)
    with pytest.raises(InvalidRequest):
        signed_again(message)


def test_sigv4a_is_refused_by_name():
    value = b"AWS4-ECDSA-P256-SHA256 Credential=x/20260517/s3/aws4_request, SignedHeaders=host, Signature=0"
    for message in (
        Message("GET", "https", "s3.amazonaws.com", 443, b"/", [(b"authorization", value)]),
        Message("GET", "https", "s3.amazonaws.com", 443, b"/?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256", []),
    ):
        with pytest.raises(InvalidRequest, match="SigV4A"):
            signed_again(message)
    message = simple()
    message.set(b"x-amz-content-sha256", b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")
    with pytest.raises(InvalidRequest, match="SigV4A"):
        signed_again(message)


@pytest.mark.parametrize(
    "fields",
    [
        {"value": b"something"},
        {"access_key_id": b"AKIA", "secret_access_key": b""},
        {"access_key_id": b"AK/IA", "secret_access_key": b"something"},
        {"access_key_id": b"AKIA\r\nX: 1", "secret_access_key": b"something"},
        {"access_key_id": b"AKIA", "secret_access_key": b"something\n"},
        {"access_key_id": b"AKIA", "secret_access_key": b"something", "session_token": b"a\r\nb"},
    ],
)
def test_keys_that_cannot_be_right_are_refused_without_being_shown(fields):
    with pytest.raises(InvalidRequest) as caught:
        next(inject(simple(), Inject.from_data({"kind": "sigv4"}), Terms(fields, NOW.timestamp())))
    assert "something" not in str(caught.value)


def test_the_secret_is_nowhere_in_what_is_sent_and_its_signing_key_is_looked_for():
    sent = signed_again(simple(), token=True)
    wire = b"\n".join([sent.target, *(part for pair in sent.headers for part in pair)])
    assert KEY.encode() not in wire
    assert b"placeholder" not in wire.lower()
    assert all(form not in wire for form in sent.forms)
    assert len(sent.forms[0]) == 32


@pytest.mark.parametrize(
    ("service", "target", "headers", "body"),
    [
        ("sts", "/", [], b"Version=2011-06-15&Action=AssumeRole&RoleArn=x"),
        ("sts", "/?Action=GetSessionToken", [], b""),
        ("sts", "/", [], b"%41ction=assumerole"),
        ("sts", "/", [], b"Action=GetCallerIdentity&Action=AssumeRole"),
        ("sts", "/service/Sts/operation/AssumeRole", [], b""),
        (
            "sts",
            "/",
            [("X-Amz-Content-Sha256", hashlib.sha256(b"Action=AssumeRole").hexdigest())],
            b"Action=AssumeRole",
        ),
        ("iam", "/", [], b"Action=CreateAccessKey"),
        ("ecr", "/", [("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")], b"{}"),
        ("codeartifact", "/v1/authorization-token?domain=x", [], b""),
        ("codeartifact", "//v1/authorization-token?domain=x", [], b""),
        ("codeartifact", "/v1//%2561uthorization-token/?domain=x", [], b""),
        ("sts", "/service/Sts/operation//%2541ssumeRole", [], b""),
        ("s3express", "/?session", [], b""),
    ],
)
def test_a_call_that_answers_with_keys_is_refused_unless_the_service_allows_it(service, target, headers, body):
    def message() -> Message:
        made = AWSRequest("POST", f"https://aws.test{target}", data=body)
        for name, value in headers:
            made.headers[name] = value
        with at(NOW):
            auth.SigV4Auth(FAKE, service, "eu-central-1").add_auth(made)
        return on_the_wire(made, body)

    with pytest.raises(PolicyDenied, match="credentials of AWS"):
        signed_again(message())
    assert signed_again(message(), credentials="allow").get(b"authorization")


def test_other_calls_of_the_same_services_are_signed():
    for body in (b"Action=GetCallerIdentity", b"Action=DecodeAuthorizationMessage&x=AssumeRole"):
        assert signed_again(simple("sts", method="POST", target="/", body=body)).get(b"authorization")
    assert signed_again(simple("dynamodb", target="/?Action=AssumeRole")).get(b"authorization")
