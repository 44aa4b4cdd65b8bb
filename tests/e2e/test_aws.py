"""boto3 as it is, with placeholder keys, reaches servers that verify what the real keys must have signed."""

import hashlib
import json
import sys
import textwrap

import pytest
import trustme
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from e2e.aws import BUCKET_HOST, HOST, HOSTS, ID, KEY, REGION, SESSION, TOKENS, Aws, Denied
from e2e.world import held

PLACEHOLDER = "AKIAPLACEHOLDER00001"
BOTO = """
import boto3, hashlib, io, json, os, sys, urllib.request
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
port, style = sys.argv[1], sys.argv[2]
def client(name, **config):
    s3 = {"addressing_style": style} if name == "s3" else None
    return boto3.client(
        name, region_name="eu-central-1", endpoint_url=f"https://{name}.aws.test:{port}",
        config=Config(s3=s3, retries={"total_max_attempts": 1}, **config),
    )
"""


class Place:
    """A vault whose agent may use the server, with keys for it or with keys of a session."""

    def __init__(self, world, aws: Aws, ca_file: str):
        self.world = world
        self.aws = aws
        self.env = {
            "KEYHOLE_UPSTREAM_CA": ca_file,
            "KEYHOLE_RESOLVE": ",".join(f"{host}:127.0.0.1" for host in HOSTS),
            "AWS_ACCESS_KEY_ID": PLACEHOLDER,
            "AWS_SECRET_ACCESS_KEY": "placeholder",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def store(self, **fields: str):
        given = json.dumps({"access_key_id": ID, "secret_access_key": KEY, **fields}).encode()
        self.world.keyhole("set", "aws/keys", "--json-in", given=given)

    def bind(self, *options: str):
        hosts = [word for host in HOSTS for word in ("--host", f"{host}:{self.aws.port}")]
        loopback = ("--allow-address", "127.0.0.1/32")
        self.world.keyhole("service", "add", "aws", *hosts, "--secret", "aws/keys", "--sigv4", *loopback, *options)
        self.world.keyhole("grant", "coder", "aws")

    def boto(self, program: str, style: str = "path", *, code: int | None = 0, **env: str):
        """Run a program of an agent. Whatever it prints has no value in it."""
        script = BOTO + textwrap.dedent(program)
        command = (sys.executable, "-c", script, str(self.aws.port), style)
        done = self.world.run(*command, code=code, **self.env, **env)
        for value in (KEY, SESSION):
            assert not held(value, done.stdout + done.stderr)
        return done


@pytest.fixture(scope="module")
def place(world):
    authority = trustme.CA()
    ca_file = world.folder / "aws-ca.pem"
    ca_file.write_bytes(authority.cert_pem.bytes())
    aws = Aws(authority)
    made = Place(world, aws, str(ca_file))
    made.store()
    made.bind()
    yield made
    aws.close()


@pytest.fixture
def aws(place):
    place.aws.verified.clear()
    place.aws.refused.clear()
    place.aws.heads.clear()
    place.aws.objects.clear()
    yield place.aws
    assert not place.aws.refused


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_objects_are_put_listed_read_and_deleted(place, aws, style):
    done = place.boto(
        """
        s3 = client("s3")
        keys = ["plain", "with space/und Ünïcode (1)+~'!*", "a=b&c;d,e@f:g$h"]
        for key in keys:
            s3.put_object(Bucket="bucket", Key=key, Body=key.encode(), Metadata={"note": "a   b"})
        listed = [each["Key"] for each in s3.list_objects_v2(Bucket="bucket", Prefix="")["Contents"]]
        part = s3.list_objects_v2(Bucket="bucket", Prefix="with space/und Ü")["Contents"]
        read = [s3.get_object(Bucket="bucket", Key=key)["Body"].read().decode() for key in keys]
        s3.head_object(Bucket="bucket", Key=keys[1])
        s3.delete_object(Bucket="bucket", Key="plain")
        print(json.dumps([sorted(keys) == listed, len(part), read == keys]))
        """,
        style,
    )
    assert json.loads(done.stdout) == [True, 1, True]
    assert len(aws.verified) == 10
    host = BUCKET_HOST if style == "virtual" else HOST
    assert all(f"Host: {host}:{aws.port}".encode() in head for head in aws.heads)
    assert any(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" in head for head in aws.heads)  # as boto3 does of itself


def test_a_large_file_goes_up_in_parts_and_comes_down_in_ranges(place, aws):
    done = place.boto(
        """
        s3 = client("s3")
        data = os.urandom(9 << 20)
        config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=3)
        s3.upload_fileobj(io.BytesIO(data), "bucket", "large", Config=config)
        with open("large", "wb") as file:
            s3.download_fileobj("bucket", "large", file, Config=config)
        print(hashlib.sha256(data).hexdigest() == hashlib.sha256(open("large", "rb").read()).hexdigest())
        """
    )
    assert done.stdout == b"True\n"
    assert sum(b"Range: bytes=" in head for head in aws.heads) == 2
    assert len(aws.objects["large"]) == 9 << 20


def test_a_body_may_be_signed_whole_or_not_at_all(place, aws):
    place.boto(
        """
        for signed in (True, False):
            s3 = client("s3", request_checksum_calculation="when_required")
            s3.meta.config.s3["payload_signing_enabled"] = signed
            s3.put_object(Bucket="bucket", Key=str(signed), Body=bytes(range(256)) * 100)
        """
    )
    assert aws.objects == dict.fromkeys(("True", "False"), bytes(range(256)) * 100)


def test_a_url_that_the_agent_presigns_works_for_it(place, aws):
    done = place.boto(
        """
        s3 = client("s3", signature_version="s3v4")
        url = s3.generate_presigned_url("put_object", {"Bucket": "bucket", "Key": "a b"}, ExpiresIn=60)
        urllib.request.urlopen(urllib.request.Request(url, b"presigned", method="PUT")).read()
        url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "a b"}, ExpiresIn=60)
        print(urllib.request.urlopen(url).read().decode())
        """
    )
    assert done.stdout == b"presigned\n"
    assert aws.objects == {"a b": b"presigned"}


@pytest.mark.client("boto3")
def test_dynamodb_and_sts(place, aws):
    done = place.boto(
        """
        table = client("dynamodb")
        table.put_item(TableName="t", Item={"id": {"S": "ü"}, "blob": {"B": bytes(range(256)) * 4096}})
        item = table.get_item(TableName="t", Key={"id": {"S": "ü"}})["Item"]
        print(item["blob"]["B"] == bytes(range(256)) * 4096, client("sts").get_caller_identity()["Account"])
        """
    )
    assert done.stdout == b"True 123456789012\n"
    assert [service for service, _, _ in aws.verified] == ["dynamodb", "dynamodb", "sts"]


def test_keys_of_a_session_bring_their_token(place, aws):
    place.store(session_token=SESSION)
    aws.token = SESSION
    try:
        place.boto(
            """
            s3 = client("s3", signature_version="s3v4")
            s3.put_object(Bucket="bucket", Key="k", Body=b"v")
            url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "k"})
            assert urllib.request.urlopen(url).read() == b"v"
            """
        )
        place.boto("client('sts').get_caller_identity()", AWS_SESSION_TOKEN="placeholder")
    finally:
        aws.token = ""
        place.store()


def test_the_placeholders_that_run_hands_out_are_signed_with_and_replaced(place, aws):
    variables = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    place.bind(*(word for name in variables for word in ("--variable", name)))
    own = {name: place.env.pop(name) for name in variables}
    try:
        done = place.boto(
            """
            s3 = client("s3", signature_version="s3v4")
            s3.put_object(Bucket="bucket", Key="k", Body=b"v")
            url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "k"})
            assert urllib.request.urlopen(url).read() == b"v"
            print(os.environ["AWS_ACCESS_KEY_ID"])
            """
        )
    finally:
        place.env.update(own)
        place.bind()
    shown = done.stdout.strip()
    assert shown != ID.encode()
    assert not any(shown in head for head in aws.heads)
    assert [method for _, method, _ in aws.verified] == ["PUT", "GET"]


CHUNKS = """
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
import http.client, ssl
word, trailer = sys.argv[2], "x-amz-checksum-crc32:" if sys.argv[2].endswith("TRAILER") else ""
chunks = [os.urandom(65536), os.urandom(65536), b"rest"]
import base64, zlib
sum_ = base64.b64encode(zlib.crc32(b"".join(chunks)).to_bytes(4, "big")).decode()
made = AWSRequest("PUT", f"https://s3.aws.test:{port}/bucket/chunked")
made.headers["x-amz-decoded-content-length"] = str(sum(map(len, chunks)))
made.headers["Content-Encoding"] = "aws-chunked"
if trailer:
    made.headers["x-amz-trailer"] = "x-amz-checksum-crc32"
signer = auth.S3SigV4Auth(Credentials("AKIAPLACEHOLDER00001", "placeholder"), "s3", "eu-central-1")
signer.payload = lambda request: word
signer.add_auth(made)
fake = "0" * 64
body = b"".join(b"%x;chunk-signature=%b\\r\\n%b\\r\\n" % (len(chunk), fake.encode(), chunk) for chunk in chunks)
body += f"0;chunk-signature={fake}\\r\\n".encode()
if trailer:
    body += f"{trailer}{sum_}\\r\\nx-amz-trailer-signature:{fake}\\r\\n".encode()
body += b"\\r\\n"
import requests
pieces = (body[at : at + 5000] for at in range(0, len(body), 5000))
answer = requests.put(made.url, data=pieces, headers=dict(made.headers.items()))
answer.raise_for_status()
print(hashlib.sha256(b"".join(chunks)).hexdigest())
"""


@pytest.mark.parametrize("word", ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"])
def test_signed_chunks_are_signed_again(place, aws, word):
    done = place.boto(CHUNKS, word)
    assert hashlib.sha256(aws.objects["chunked"]).hexdigest() == done.stdout.decode().strip()


def test_a_region_other_than_the_pinned_one_is_refused_and_said_why(place, aws):
    place.bind("--region", "us-east-1")
    try:
        done = place.boto("client('sts').get_caller_identity()", code=1)
    finally:
        place.bind()
    assert b"us-east-1" in done.stderr
    assert not aws.verified


@pytest.mark.parametrize(("key_id", "why"), [(PLACEHOLDER, "another key"), (ID, "signature does not match")])
def test_the_server_takes_no_signature_but_that_of_the_real_key(place, key_id, why):
    made = AWSRequest("GET", f"https://{TOKENS}:{place.aws.port}/")
    auth.SigV4Auth(Credentials(key_id, "placeholder"), "sts", REGION).add_auth(made)
    headers = [("Host", f"{TOKENS}:{place.aws.port}"), *made.headers.items()]
    with pytest.raises(Denied, match=why):
        place.aws.verify("GET", "/", headers, b"")
