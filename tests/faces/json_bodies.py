"""Bodies that are no JSON, hardly any, or JSON that two readers read in two ways, for every route that takes one."""

import asyncio
import json
import os
import re
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faces.api_client import asking, furnish

CHUNK = 80  # routes that are asked of one vault
ENDING = {"sys/seal", "sys/step-down", "auth/token/revoke-self"}  # a body that counts would end the vault or the token
QUOTAS = "sys/quotas/rate-limit/"
VERIFYING = {"sys/audit-log/verify"}  # takes longer with each request before it
HUGE = "9" * 5000

VALUES = {
    "null": "null",
    "an integer without end": HUGE,
    "a negative integer without end": f"-{HUGE}",
    "an integer of 65 bits": str(2**64),
    "an integer of 63 bits": str(2**63 - 1),
    "a number beyond a double": "1e400",
    "a number next to nothing": "1e-400",
    "an exponent without end": f"1e{HUGE}",
    "minus zero": "-0",
    "a fraction": "0.1",
    "NaN": "NaN",
    "minus Infinity": "-Infinity",
    "a key twice": '{"a":1,"a":2}',
    "a key twice, spelled in two ways": '{"a":1,"\\u0061":2}',
    "nested 60 deep": "[" * 60 + "]" * 60,
    "nested 5,000 deep": "[" * 5000 + "]" * 5000,
    "objects nested 5,000 deep": '{"a":' * 5000 + "1" + "}" * 5000,
    "half of a surrogate pair": '"\\ud800"',
    "a NUL": '"\\u0000"',
    "an empty key": '{"":""}',
    "the keys of a prototype": '{"__proto__":{"a":1},"constructor":1}',
    "a bare word": "True",
    "single quotes": "'x'",
    "a comma too many": "[1,]",
}
"""JSON values, and what some readers take for one."""

WHOLE = {
    "a field twice": b'{"data":{"a":"1"},"data":{"a":"2"}}',
    "a field twice, once escaped": b'{"policies":["a"],"polic\\u0069es":["root"]}',
    "a field twice below": b'{"data":{"value":"1","value":"2"}}',
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-32": '{"a":1}'.encode("utf-32-be"),
    "a byte that is no UTF-8": b'{"a":"\xff"}',
    "an overlong slash": b'{"a":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "a comment": b'{"a":1/*x*/}',
    "two documents": b'{"a":1}{"a":2}',
    "something behind it": b'{"a":1} x',
    "a NUL behind it": b'{"a":1}\x00',
    "an object that does not end": b'{"a":' * 100_000,
    "arrays that do not begin": b"]" * 100_000,
    "a string that does not end": b'{"a":"' + b"\\" * 100_001,
    "more members than anybody needs": b'{"data":[' + b"0," * 100_001 + b"0]}",
    "a key of 1 MB": b'{"' + b"k" * 2**20 + b'":1}',
    "only blanks": b" \n\t",
    "a list of objects": b'[{"a":1}]',
    "the word null": b"null",
    "a form": b"a=1&b=2",
    "XML": b'<?xml version="1.0"?><a/>',
}


def suite():
    """The bodies of JSONTestSuite by name; skips the test where they are not at hand."""
    archive = Path(os.environ.get("KEYHOLE_VECTORS", "/nonexistent"), "third-party", "json.tar.gz")
    if not archive.exists():
        pytest.skip("KEYHOLE_VECTORS is not set: the bodies of JSONTestSuite did not run")
    with tarfile.open(archive) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile() and m.name.endswith(".json")}
    assert sum("/test_parsing/" in name for name in files) == 318
    return dict(sorted(files.items()))


def bodies(found):
    """All bodies by name: those of the suite as they are and as the value of a field, and ours."""
    made = dict(found)
    made |= {f"{name} as data": b'{"data":' + body + b"}" for name, body in found.items()}
    made |= {f"{name} as data": f'{{"data":{value}}}'.encode() for name, value in VALUES.items()}
    return made | {name: value.encode() for name, value in VALUES.items()} | WHOLE


def counts(body):
    """Whether a body may be read at all: it is nothing, or one object that every reader reads alike."""

    def unique(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def constant(name):
        raise ValueError(name)

    if not body.strip():
        return True
    try:
        value = json.loads(body.decode(), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


async def routes(ask):
    """Every path of the OpenAPI document that takes a POST, its parameters filled in, with the fields that it knows."""
    document = (await ask("GET", "sys/internal/specs/openapi")).json["paths"]
    found = {}
    for path, item in sorted(document.items()):
        if "post" in item:
            content = item["post"].get("requestBody", {"content": {}})["content"]
            schema = next(iter(content.values()), {"schema": {}})["schema"]
            filled = re.sub(r"\{path\}", "x/y", path.removeprefix("/"))
            found[re.sub(r"\{\w+\}", "x", filled)] = sorted(schema.get("properties", {}))
    return found


@dataclass
class Seen:
    """What was asked, and what was answered as it must not be; the slowest refusal, in seconds of the processor."""

    asked: int = 0
    known: set = field(default_factory=set)
    routes: set = field(default_factory=set)
    bodies: set = field(default_factory=set)
    wrong: list = field(default_factory=list)
    slowest: tuple = (0.0, "", "")

    async def ask(self, client, path, name, body):
        if path in ENDING | VERIFYING and counts(body):
            return
        began = time.process_time()
        answer = await client("POST", path, raw=body)
        if answer.status >= 400:  # what is done may take its time, as making a key does
            self.slowest = max(self.slowest, (time.process_time() - began, path, name))
        self.asked += 1
        self.routes.add(path)
        self.bodies.add(name)
        if path.startswith(QUOTAS) and answer.status < 400:  # else all that follows is refused for it
            await client("DELETE", path)
        if answer.status >= 500 or (answer.status < 400 and not counts(body)):
            self.wrong.append((path, name, answer.status, answer.body[:200]))


def run(choose, seen=None):
    """Ask what ``choose`` says: it is given the routes with their fields and the number of one, and gives named bodies.

    A new vault for every eighty routes, so that none stands on much of what others made.
    """
    seen = seen or Seen()

    async def chunk(start):
        async with asking() as (ask, vault):
            await furnish(ask)
            known = await routes(ask)
            for number, path in list(enumerate(known))[start : start + CHUNK]:
                for name, body in choose(known, number):
                    await seen.ask(ask, path, name, body)
            assert vault.node.vault is not None
            assert (await ask("GET", "auth/token/lookup-self")).status == 200, sorted(known)[start]
            seen.known |= known.keys()
            return len(known)

    start, total = 0, 1
    while start < total:
        total = asyncio.run(chunk(start))
        start += CHUNK
    return seen


def spread(corpus, routes, number, each):
    """Some bodies for a route: so many, and further ones for the next route, until all had their turn."""
    if list(routes)[number] in ENDING | VERIFYING:
        corpus = [pair for pair in corpus if not counts(pair[1])]
    return [corpus[(number * each + step) % len(corpus)] for step in range(min(each, len(corpus)))]


def of_fields(fields, number, *, every=False):
    """A body for each field with one of the values, or with each of them."""
    values = list(VALUES.items())
    for place, name in enumerate(fields):
        chosen = values if every else [values[(number + place) % len(values)]]
        for label, value in chosen:
            yield f"{label} as {name}", f"{{{json.dumps(name)}:{value}}}".encode()
