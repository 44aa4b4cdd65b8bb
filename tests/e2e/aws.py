"""Enough of S3, DynamoDB and STS to be used by boto3, over TLS on loopback. Signatures are verified by botocore."""

import base64
import hashlib
import hmac
import json
import re
import ssl
import threading
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import trustme
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from e2e.double import Handler

HOST = "s3.aws.test"
BUCKET_HOST = f"bucket.{HOST}"
DATABASE = "dynamodb.aws.test"
TOKENS = "sts.aws.test"
HOSTS = (HOST, BUCKET_HOST, DATABASE, TOKENS)
ID = "AKIAREALREALREAL0001"
KEY = "real/secret+key/0123456789abcdefghijklmn"
SESSION = "session//token+/=="
REGION = "eu-central-1"


class Denied(Exception):
    """The signature is not right; the text says in what."""


class Verified(NamedTuple):
    service: str
    body: bytes
    presigned: bool


@dataclass
class Aws:
    """The server. `token` is the session token that requests have to carry, if any."""

    authority: trustme.CA
    token: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    items: dict[str, dict] = field(default_factory=dict)
    verified: list[tuple[str, str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    hosts: tuple[str, ...] = HOSTS

    def __post_init__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*self.hosts).configure_cert(context)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"aws": self}))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def verify(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Verified:
        """Raises `Denied` unless the real key signed the request; gives the body without its chunks."""
        fields = {name.lower(): value for name, value in headers}
        query = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        presigned = "X-Amz-Signature" in query
        if presigned:
            if "authorization" in fields:
                raise Denied("two signatures")
            credential, names, given = (query[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders", "Signature"))
            timestamp, token = query["X-Amz-Date"], query.get("X-Amz-Security-Token", "")
            ends = _time(timestamp) + timedelta(seconds=int(query["X-Amz-Expires"]))
            target = re.sub(r"&X-Amz-Signature=[0-9a-f]+", "", target)
        else:
            said = re.fullmatch(
                r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
                fields.get("authorization", ""),
            )
            if said is None:
                raise Denied("not signed")
            credential, names, given = said.groups()
            timestamp, token = fields["x-amz-date"], fields.get("x-amz-security-token", "")
            ends = _time(timestamp) + timedelta(minutes=15)
        if datetime.now(UTC) > ends or _time(timestamp) > datetime.now(UTC) + timedelta(minutes=15):
            raise Denied("the date is not near")
        key_id, date, region, service, _ = credential.split("/")
        if (key_id, date, region, token) != (ID, timestamp[:8], REGION, self.token):
            raise Denied("another key, date, region or token")
        covered = set(names.split(";"))
        if "host" not in covered or any(name.startswith("x-amz-") for name in fields.keys() - covered):
            raise Denied("a header is not signed that has to be")
        made = AWSRequest(method, f"https://{fields['host']}{target}", data=body)
        for name, value in headers:
            if name.lower() in covered:
                made.headers[name] = value
        made.context["timestamp"] = timestamp
        kinds = (auth.S3SigV4QueryAuth, auth.S3SigV4Auth) if service == "s3" else (auth.SigV4QueryAuth, auth.SigV4Auth)
        signer = kinds[not presigned](Credentials(ID, KEY), service, region)
        if signer.signature(signer.string_to_sign(made, signer.canonical_request(made)), made) != given:
            raise Denied("the signature does not match")
        word = fields.get("x-amz-content-sha256", "")
        if service == "s3" and not presigned and not word:
            raise Denied("no x-amz-content-sha256")
        if re.fullmatch("[0-9a-f]{64}", word) and hashlib.sha256(body).hexdigest() != word:
            raise Denied("the body is another one")
        if word.startswith("STREAMING-"):
            body = _unchunked(body, word, given, timestamp, f"{date}/{region}/{service}/aws4_request", fields)
        return Verified(service, body, presigned)


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _unchunked(body: bytes, word: str, seed: str, timestamp: str, scope: str, fields: dict[str, str]) -> bytes:
    """The data of an aws-chunked body, once the signatures of its chunks and its checksum are right."""
    key = b"AWS4" + KEY.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()

    def sign(kind: str, *parts: str) -> str:
        return hmac.new(key, "\n".join([kind, timestamp, scope, *parts]).encode(), hashlib.sha256).hexdigest()

    data, last = b"", seed
    while True:
        head, _, body = body.partition(b"\r\n")
        size, _, signature = head.decode().partition(";chunk-signature=")
        chunk, body = body[: int(size, 16)], body[int(size, 16) :]
        if "AWS4-HMAC" in word:
            digests = hashlib.sha256().hexdigest(), hashlib.sha256(chunk).hexdigest()
            last = sign("AWS4-HMAC-SHA256-PAYLOAD", last, *digests)
            if signature != last:
                raise Denied("the signature of a chunk does not match")
        data += chunk
        if not chunk:
            break
        body = body.removeprefix(b"\r\n")
    trailers = dict(line.decode().split(":", 1) for line in body.split(b"\r\n") if line)
    signature = trailers.pop("x-amz-trailer-signature", "")
    text = "".join(f"{name}:{value}\n" for name, value in trailers.items())
    signed = word == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    if signed and signature != sign("AWS4-HMAC-SHA256-TRAILER", last, hashlib.sha256(text.encode()).hexdigest()):
        raise Denied("the signature of the trailer does not match")
    if set(trailers) != set(filter(None, [fields.get("x-amz-trailer")])):
        raise Denied("other trailers than were announced")
    if trailers.get("x-amz-checksum-crc32", _crc32(data)) != _crc32(data):
        raise Denied("the checksum is wrong")
    if int(fields["x-amz-decoded-content-length"]) != len(data):
        raise Denied("the length is wrong")
    return data


def _crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


class _Handler(Handler):
    aws: Aws

    def _serve(self):
        body = self.read_body()
        self.aws.heads.append(self.path.encode() + b"\n" + self.headers.as_bytes())
        try:
            checked = self.aws.verify(self.command, self.path, self.headers.items(), body)
        except Denied as error:
            self.aws.refused.append(f"{self.command} {self.path}: {error}")
            self._answer(403, f"<Error><Code>SignatureDoesNotMatch</Code><Message>{error}</Message></Error>".encode())
            return
        self.aws.verified.append((checked.service, self.command, self.path))
        {"s3": self._s3, "dynamodb": self._dynamodb, "sts": self._sts}[checked.service](checked.body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815  # names of http.server

    def _answer(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _sts(self, body: bytes):
        action = parse_qs(body.decode())["Action"][0]
        arn = "arn:aws:iam::123456789012:user/agent"
        result = f"<Arn>{arn}</Arn><UserId>{ID}</UserId><Account>123456789012</Account>"
        xmlns = "https://sts.amazonaws.com/doc/2011-06-15/"
        text = f'<{action}Response xmlns="{xmlns}"><{action}Result>{result}</{action}Result></{action}Response>'
        self._answer(200, text.encode(), Content_Type="text/xml")

    def _dynamodb(self, body: bytes):
        data = json.loads(body)
        answer = {}
        if self.headers["X-Amz-Target"].endswith(".PutItem"):
            self.aws.items[data["Item"]["id"]["S"]] = data["Item"]
        elif item := self.aws.items.get(data["Key"]["id"]["S"]):
            answer = {"Item": item}
        self._answer(200, json.dumps(answer).encode(), Content_Type="application/x-amz-json-1.0")

    def _s3(self, body: bytes):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        path = unquote(url.path).removeprefix("/")
        key = path if self.headers["Host"].startswith("bucket.") else path.partition("/")[2]
        if "uploads" in query or "uploadId" in query:
            self._multipart(key, query, body)
        elif not key:
            contents = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size></Contents>"
                for name, data in sorted(self.aws.objects.items())
                if name.startswith(query.get("prefix", ""))
            )
            self._answer(200, f"<ListBucketResult>{contents}</ListBucketResult>".encode())
        elif self.command == "PUT":
            self.aws.objects[key] = body
            self._answer(200, ETag=_etag(body), x_amz_checksum_crc32=_crc32(body))
        elif self.command == "DELETE":
            self.aws.objects.pop(key, None)
            self._answer(204)
        else:
            self._object(key)

    def _object(self, key: str):
        data = self.aws.objects.get(key)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            part = data[first : last + 1]
            self._answer(206, part, ETag=_etag(data), Content_Range=f"bytes {first}-{last}/{len(data)}")
        else:
            self._answer(
                200, data, ETag=_etag(data), Last_Modified=self.date_time_string(), x_amz_checksum_crc32=_crc32(data)
            )

    def _multipart(self, key: str, query: dict[str, str], body: bytes):
        if "uploads" in query:
            self.aws.uploads[key] = {}
            self._answer(200, f"<R><Bucket>bucket</Bucket><Key>{escape(key)}</Key><UploadId>u1</UploadId></R>".encode())
        elif self.command == "PUT":
            self.aws.uploads[key][int(query["partNumber"])] = body
            self._answer(200, ETag=_etag(body), x_amz_checksum_crc32=_crc32(body))
        else:
            parts = self.aws.uploads.pop(key)
            self.aws.objects[key] = b"".join(parts[number] for number in sorted(parts))
            self._answer(200, f"<R><Key>{escape(key)}</Key><ETag>x</ETag></R>".encode())


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
