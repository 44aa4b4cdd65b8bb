"""Replays what was recorded of a real Vault (1.8), in order, and says what a client would notice of the difference.

Names that a server chooses (tokens, accessors, ids, ciphertexts) are learned from our answers and put into the requests
that follow. Values are compared one by one, but for those that depend on chance, the time or the machine.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

RECORDED = Path(__file__).resolve().parents[1] / "data" / "vault-golden" / "recorded.jsonl"
ROOT = "s.3ZQQSVHIFoCe3QShWN9farUk"
NOBODY = "s.unknown"

# What a server chooses. Ours is put where theirs stands in later requests.
CHOSEN = {
    "accessor",
    "canonical_id",
    "ciphertext",
    "client_token",
    "entity_id",
    "id",
    "lease_id",
    "mount_accessor",
    "role_id",
    "secret_id",
    "secret_id_accessor",
    "serial_number",
    "signature",
    "token",
    "uuid",
    "wrapped_accessor",
}
# Depends on chance, the time or the machine: only its JSON type is compared, and of a time that it is one.
VARIES = CHOSEN | {
    "backup",
    "otp",
    "build_date",
    "ca_chain",
    "certificate",
    "cluster_id",
    "cluster_name",
    "cpu",
    "created_time",
    "creation_time",
    "deletion_time",
    "disk",
    "expiration",
    "expiration_time",
    "expire_time",
    "hash",
    "hmac",
    "host",
    "install_time",
    "issue_time",
    "issuing_ca",
    "last_renewal",
    "last_renewal_time",
    "last_update_time",
    "last_updated_time",
    "memory",
    "nonce",
    "password",
    "plaintext",
    "private_key",
    "public_key",
    "random_bytes",
    "request_id",
    "server_time_utc",
    "signed_key",
    "timestamp",
    "updated_time",
    "version",
}
SLACK = 2  # seconds by which what is left of a time may differ
EPOCH = 1_600_000_000  # seconds above it are a point in time
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass
class Exchange:
    """One request and what a real Vault answered."""

    n: int
    note: str
    method: str
    path: str
    body: object
    auth: str
    status: int
    json: object
    wrap: str = ""
    location: str = ""
    type: str = ""

    @property
    def where(self):
        return f"{self.n} {self.method} {self.path} {json.dumps(self.body)[:120]}"


def exchanges():
    return [Exchange(**json.loads(line)) for line in RECORDED.read_text().splitlines()]


@dataclass
class Replay:
    """Sends exchanges through ``ask``.

    Attributes:
        ours: what a server chose -> what ours chose.
        others: number of an exchange of somebody else -> number of the one that made the token, or a token.
    """

    ask: object
    root: str
    files: Path
    others: dict
    ours: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict)

    def __post_init__(self):
        self.ours[ROOT] = self.root

    def translate(self, text):
        for theirs in sorted(self.ours, key=len, reverse=True):
            text = text.replace(theirs, self.ours[theirs])
        return text.replace("AUDIT_LOG", str(self.files / "audit"))

    def credential(self, exchange):
        if exchange.note == "bearer":
            return None, [(b"authorization", b"Bearer " + self.root.encode())]
        if exchange.auth == "none":
            return None, []
        if exchange.auth == "other":
            who = self.others.get(exchange.n, NOBODY)
            return self.tokens.get(who, NOBODY) if isinstance(who, int) else who, []
        return self.root, []

    async def send(self, exchange):
        token, headers = self.credential(exchange)
        if exchange.wrap:
            headers.append((b"x-vault-wrap-ttl", exchange.wrap.encode()))
        body, raw = exchange.body, None
        if isinstance(body, str):
            body, raw = None, body.encode()
        elif body is not None:
            body = json.loads(self.translate(json.dumps(body)))
        path = self.translate(exchange.path)
        path = f"/v1/{path}" if exchange.location else path
        answer = await self.ask(exchange.method, path, body, token=token, headers=headers, raw=raw)
        self.learn(exchange, answer)
        return answer

    def learn(self, exchange, answer):
        """Pair what both servers chose."""
        ours = decoded(answer)
        self._pair(exchange.json, ours)
        for block in ("auth", "wrap_info"):
            made = ours.get(block) if isinstance(ours, dict) else None
            if made:
                self.tokens[exchange.n] = made.get("client_token") or made.get("token")

    def _pair(self, theirs, ours, name=""):
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for key in theirs.keys() & ours.keys():
                self._pair(theirs[key], ours[key], key)
        elif isinstance(theirs, list) and isinstance(ours, list):
            for one, other in zip(theirs, ours, strict=False):
                self._pair(one, other, name)
        elif name in CHOSEN and isinstance(theirs, str) and isinstance(ours, str) and len(theirs) > 5 and ours:
            self.ours.setdefault(theirs, ours)


def decoded(answer):
    """A body as JSON where it is JSON, else as text."""
    try:
        return json.loads(answer.body) if answer.body else None
    except ValueError:
        return answer.body.decode("latin-1")


def differences(exchange, answer, translate, *, status=None, errors=None, skip=()):
    """What a client would notice.

    Args:
        exchange: what was recorded.
        answer: ours.
        translate: puts what our server chose in place of what theirs chose.
        status, errors: what a Vault of the version that we report answers instead.
        skip: fields (``data.keys``, ``*.uuid``) that differ on purpose.
    """
    if answer.status != (status or exchange.status):
        return [f"status {answer.status}, not {status or exchange.status}: {answer.body[:300]}"]
    if errors is not None:
        got = (decoded(answer) or {}).get("errors")
        return [] if got == errors else [f"errors {got}, not {errors}"]
    if status:
        return []
    if exchange.location:
        return [] if answer.headers.get("location") == exchange.location else [f"leads to {answer.headers}"]
    if (
        exchange.type
        and "type" not in skip
        and answer.headers["content-type"].partition(";")[0] != exchange.type.partition(";")[0]
    ):
        return [f"type {answer.headers['content-type']}, not {exchange.type}"]
    if exchange.type or exchange.method == "HEAD":
        return []
    theirs = json.loads(translate(json.dumps(exchange.json)))
    return list(_compare(theirs, decoded(answer), "", skip))


def _compare(theirs, ours, where, skip):
    name = where.rpartition(".")[2]
    if where.lstrip(".") in skip or f"*.{name}" in skip:
        return
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key, value in theirs.items():
            if key in ours:
                yield from _compare(value, ours[key], f"{where}.{key}", skip)
            elif f"{where}.{key}".lstrip(".") not in skip and f"*.{key}" not in skip:
                yield f"{where} has no {key} ({json.dumps(value)[:60]})"
    elif kind_of(theirs) != kind_of(ours):
        yield f"{where} is {json.dumps(ours)[:100]}, not {json.dumps(theirs)[:100]}"
    elif name in VARIES:
        if isinstance(theirs, str) and bool(_TIME.fullmatch(theirs)) != bool(_TIME.fullmatch(ours)):
            yield f"{where} is {ours!r}, not a time like {theirs!r}"
    elif isinstance(theirs, list) and len(theirs) == len(ours) and not all(isinstance(each, str) for each in theirs):
        for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from _compare(one, other, f"{where}.{number}", skip)
    elif theirs != ours and not _alike(name, theirs, ours):
        yield f"{where} is {json.dumps(ours)[:200]}, not {json.dumps(theirs)[:200]}"


def _alike(name, theirs, ours):
    """Is the difference one of a moment that passed, or of the order of made names?"""
    if name == "keys" and isinstance(theirs, list):
        return sorted(theirs) == sorted(ours)
    if not isinstance(theirs, int):
        return False
    return min(theirs, ours) > EPOCH or (name.endswith(("ttl", "duration")) and abs(theirs - ours) <= SLACK)


def kind_of(value):
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
