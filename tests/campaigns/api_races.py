"""Many at once, and many guesses, over HTTP against a server process, as users and attackers would.

    python tests/campaigns/api_races.py [--scale 1.0]

What is looked for: a child of a token that was being revoked lives; a token for ten uses has eleven; a wrapping token
is opened twice; two writers win one check-and-set; an answer to a guess says how near it was; a flood of guesses at one
org's logins keeps out the people of another. Nothing here depends on how fast the machine is.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import random
import re
import string
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli_driver import environment, serving

ROOT = "root"
PASSWORD = "correct horse battery staple"
KDF_MEMORY = 64 * 1024  # KiB of one Argon2id
LETTERS = string.ascii_letters + string.digits
REFUSED = (403, 429)  # so many without a valid token are a flood, which has a status of its own
UNIQUE = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}")


class Wire:
    """One connection that is kept."""

    def __init__(self, address, source="127.0.0.1"):
        self.address = address
        self.source = source

    async def __aenter__(self):
        host, _, port = self.address.rpartition(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port), local_addr=(self.source, 0))
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        await self.writer.wait_closed()

    async def raw(self, method, path, body=None, *, token=ROOT, **headers):
        """The status and the bytes of the body."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} /v1/{path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
        lines += [f"X-Vault-Token: {token}"] if token else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        return int(head.split()[1]), await self.reader.readexactly(int(size[1]) if size else 0)

    async def __call__(self, method, path, body=None, **options):
        status, text = await self.raw(method, path, body, **options)
        return status, json.loads(text) if text else {}

    async def must(self, method, path, body=None, **options):
        status, answer = await self(method, path, body, **options)
        assert status < 300, (path, answer)
        return answer


class Wires:
    """Connections to one server, all open before anything is asked."""

    def __init__(self, address, wires):
        self.address = address
        self.wires = wires
        self.one = wires[0]

    async def at_once(self, *requests):
        """The answers to these requests, each sent on a connection of its own before any is answered."""
        assert len(requests) <= len(self.wires)
        return await asyncio.gather(
            *(wire(*args, token=token) for wire, (token, *args) in zip(self.wires, requests, strict=False))
        )


def talk(started, scenario, *args, wires=1, sources=("127.0.0.1",)):
    """Run a scenario with so many open connections, from these addresses in turn."""

    async def main():
        address = started["api"].removeprefix("http://")
        async with contextlib.AsyncExitStack() as stack:
            made = [Wire(address, sources[number % len(sources)]) for number in range(wires)]
            return await scenario(Wires(address, [await stack.enter_async_context(each) for each in made]), *args)

    return asyncio.run(main())


async def children_of_revoked_parents(wires, rounds, rng):
    """No child of a token lives that was made while the token was revoked; how many children were made."""
    one = wires.one
    await one.must("PUT", "sys/policies/acl/maker", {"policy": 'path "auth/token/create" {capabilities=["update"]}'})
    before = await one.must("LIST", "auth/token/accessors")
    made = 0
    for _ in range(rounds):
        parent = (await one.must("POST", "auth/token/create", {"policies": ["maker"]}))["auth"]["client_token"]
        requests = [(parent, "POST", "auth/token/create", {"policies": ["maker"]}) for _ in range(4)]
        requests.insert(rng.randrange(5), (ROOT, "POST", "auth/token/revoke", {"token": parent}))
        answers = await wires.at_once(*requests)
        children = [answer["auth"]["client_token"] for status, answer in answers if status == 200]
        assert {status for status, _ in answers} <= {200, 204, 400, *REFUSED}
        for child in (parent, *children):
            status, _ = await one("GET", "auth/token/lookup-self", token=child)
            assert status in REFUSED, "a child of a revoked token lives"
        made += len(children)
    after = await one.must("LIST", "auth/token/accessors")
    assert len(after["data"]["keys"]) == len(before["data"]["keys"])
    return made


async def ten_uses(wires, rounds):
    """A token for ten uses has ten, however many ask at once."""
    for _ in range(rounds):
        made = await wires.one.must("POST", "auth/token/create", {"policies": ["default"], "num_uses": 10})
        token = made["auth"]["client_token"]
        answers = await wires.at_once(*[(token, "GET", "auth/token/lookup-self")] * 50)
        told = collections.Counter(status for status, _ in answers)
        assert told[200] == 10
        assert set(told) <= {200, *REFUSED}


async def one_unwrap(wires, rounds):
    """Of many who open a wrapped answer at once one gets it."""
    await wires.one.must("POST", "secret/data/wrapped", {"data": {"v": "once"}})
    for _ in range(rounds):
        wrapped = await wires.one.must("GET", "secret/data/wrapped", X_Vault_Wrap_TTL="60")
        token = wrapped["wrap_info"]["token"]
        answers = await wires.at_once(*[(token, "POST", "sys/wrapping/unwrap")] * 50)
        assert {status for status, _ in answers} <= {200, 400, 429}
        [given] = [answer for status, answer in answers if status == 200]
        assert given["data"]["data"] == {"v": "once"}


async def one_winner(wires, rounds, writers):
    """Of many who check and set one version one wins; versions have no gap, and each is the winner's."""
    winners = []
    for version in range(rounds):
        answers = await wires.at_once(
            *[
                (ROOT, "POST", "secret/data/raced", {"data": {"by": f"{version}-{n}"}, "options": {"cas": version}})
                for n in range(writers)
            ]
        )
        won = [number for number, (status, _) in enumerate(answers) if status == 200]
        assert len(won) == 1, f"round {version} was won by {len(won)}"
        assert {status for status, _ in answers} == {200, 400}
        assert answers[won[0]][1]["data"]["version"] == version + 1
        winners.append(f"{version}-{won[0]}")
    known = (await wires.one.must("GET", "secret/metadata/raced"))["data"]
    kept = range(max(1, rounds - 9), rounds + 1)  # as many as are kept unless one says
    assert sorted(map(int, known["versions"])) == list(kept)
    for version in kept:
        found = await wires.one.must("GET", f"secret/data/raced?version={version}")
        assert found["data"]["data"] == {"by": winners[version - 1]}


def near(token, length):
    """Another token that begins with so many characters of this one."""
    head, tail = token[:length], token[length:]
    return head + "".join(LETTERS[LETTERS.find(letter) - 1] for letter in tail)


async def guesses(wires, count, rng):
    """Who guesses at tokens learns nothing, is slowed down, and keeps nobody out; how many guesses were answered."""
    one, other = wires.wires[:2]
    acme = (await one.must("POST", "sys/namespaces/acme", {}))["data"]["root_token"]
    real = (await one.must("POST", "auth/token/create", {"policies": ["default"]}))["auth"]["client_token"]
    told, said = collections.Counter(), collections.defaultdict(set)
    for number in range(count):
        kind = ("far", "near", "near one of another org")[number % 3]
        if kind == "far":
            guess = f"hvs.{rng.getrandbits(160):040x}"
        else:
            whole = real if kind == "near" else acme
            last = len(whole.rpartition(".")[0] if whole is acme else whole)
            guess = near(whole[:last], rng.randrange(4, last)) + whole[last:]
        status, body = await one.raw("GET", "auth/token/lookup-self", token=guess)
        told[status] += 1
        said[status].add((kind, UNIQUE.sub(b"", body)))
        if number % 50 == 0:
            for token in (real, acme):  # from the same address, whatever it guessed
                assert (await one("GET", "auth/token/lookup-self", token=token))[0] == 200
    assert set(told) == {403, 429}, told
    for answers in said.values():
        assert len({body for _, body in answers}) == 1, "an answer says more of one guess than of another"
    assert {kind for kind, _ in said[403]} == {"far", "near", "near one of another org"}
    assert told[403] < count / 2
    assert (await other("GET", "auth/token/lookup-self", token="hvs.guess"))[0] == 403  # another address is told why
    return told[403]


def peak(pid):
    """KiB of memory that a process has had at most."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


async def login_flood(wires, pid):
    """Guesses at the passwords of one org, from many addresses; people of another log in, one proof at a time."""
    tokens = {}
    for org in ("flooded", "quiet"):
        tokens[org] = (await wires.one.must("POST", f"sys/namespaces/{org}", {}))["data"]["root_token"]
        await wires.one.must("POST", "sys/auth/userpass", {"type": "userpass"}, token=tokens[org])
        await wires.one.must("POST", "auth/userpass/users/ann", {"password": PASSWORD}, token=tokens[org])
    ann, holder, *flood = wires.wires
    before, answers = peak(pid), collections.Counter()

    async def guess(number, wire):
        path = f"auth/userpass/login/user{number}"
        status, _ = await wire("POST", path, {"password": "wrong"}, token=None, X_Vault_Namespace="flooded")
        answers[status] += 1
        full.set()

    full = asyncio.Event()
    tasks = [asyncio.create_task(guess(number, wire)) for number, wire in enumerate(flood)]
    while not answers[429]:  # those that find no place any more are told first
        await full.wait()
        full.clear()
    proved = answers[400]
    status, answer = await ann(
        "POST", "auth/userpass/login/ann", {"password": PASSWORD}, token=None, X_Vault_Namespace="quiet"
    )
    assert (status, "auth" in answer) == (200, True), answer
    assert answers[400] - proved <= 3, "who logs in at a quiet org waited for the guesses at another"
    assert (await holder("GET", "auth/token/lookup-self", token=tokens["flooded"]))[0] == 200
    assert peak(pid) - before < 3 * KDF_MEMORY, "passwords were stretched side by side"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(answers) <= {400, 429}
    return answers[429]


def campaign(started, scale=1.0, *, seed=1, report=print):
    """All of it, so many times as long as it takes to be sure; the short form is a small part of that."""
    rng = random.Random(seed)

    def part(most):
        return max(2, round(most * scale))

    report(talk(started, children_of_revoked_parents, part(500), rng, wires=5), "children of parents being revoked")
    talk(started, ten_uses, part(20), wires=50)
    talk(started, one_unwrap, part(20), wires=50)
    talk(started, one_winner, part(20), 100, wires=100)
    sources = ("127.0.0.2", "127.0.0.3")
    report(talk(started, guesses, max(300, part(10_000)), rng, wires=2, sources=sources), "guesses were told why not")
    many = [f"127.0.{number // 200 + 4}.{number % 200 + 1}" for number in range(400)]
    turned = talk(started, login_flood, started["pid"], wires=max(42, part(400)), sources=many)
    report(turned, "logins were turned away, and none of another org")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="rounds, as a part of the usual number")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as folder, server(folder) as started:
        campaign(started, given.scale, seed=given.seed)


def server(folder):
    options = ("--dev", "--dev-root-token-id", ROOT, "--drain", "0")
    env = environment(KEYHOLE_HOME=str(folder))

    @contextlib.contextmanager
    def serve():
        with serving(*options, env=env, real=True) as (_, started):
            yield started

    return serve()


if __name__ == "__main__":
    main()
