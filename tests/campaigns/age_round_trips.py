"""Seal with one program of age and open with another, both ways, at random sizes and for several readers.

    python tests/campaigns/age_round_trips.py --rounds 500 --seed 1

Every round seals random bytes for one to five readers with Keyhole and has one of them open it with pyrage and with
age-encryption of npm, then the other way round; each 25th does the same with the program `age`. Sizes lie around the
chunks of the format (64 KiB). Once a round somebody for whom it is not sealed is refused by each library.
"""

import argparse
import base64
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyrage

from keyhole.core.errors import NotFound
from keyhole.crypto import age
from keyhole.crypto.age import Identity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from children import child
from sdk import built

CHUNK = 64 * 1024
EDGES = (0, 1, 15, 16, 17, CHUNK - 17, CHUNK - 16, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1)
EVERY = 25


class Refused(Exception):
    """Another library does not open a file."""


@dataclass
class Npm:
    """age-encryption in one process of Node."""

    process: subprocess.Popen

    @classmethod
    @contextlib.contextmanager
    def running(cls):
        command = [built.node(), str(built.built() / "test/age_lines.js")]
        with child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield cls(process)
            process.stdin.close()
        assert process.returncode == 0

    def _ask(self, **question) -> bytes:
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode().strip()
        if line.startswith("error"):
            raise Refused(line)
        return base64.b64decode(line)

    def seal(self, data: bytes, recipients: list[str]) -> bytes:
        return self._ask(seal=base64.b64encode(data).decode(), recipients=recipients)

    def open(self, data: bytes, identity: str) -> bytes:
        return self._ask(open=base64.b64encode(data).decode(), identity=identity)


class Pyrage:
    """pyrage without a line of ours."""

    def seal(self, data: bytes, recipients: list[str]) -> bytes:
        return pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(each) for each in recipients])

    def open(self, data: bytes, identity: str) -> bytes:
        try:
            return pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(identity)])
        except pyrage.DecryptError as error:
            raise Refused(str(error)) from None


class Program:
    """The program `age`."""

    def __init__(self, folder: Path):
        self.key = folder / "key"
        self.program = shutil.which("age")
        assert self.program, "scripts/os-needs installs age"

    def _run(self, *words: str, data: bytes) -> bytes:
        done = subprocess.run([self.program, *words], input=data, capture_output=True, check=False)
        if done.returncode:
            raise Refused(done.stderr.decode())
        return done.stdout

    def seal(self, data: bytes, recipients: list[str]) -> bytes:
        return self._run(*(word for each in recipients for word in ("-r", each)), data=data)

    def open(self, data: bytes, identity: str) -> bytes:
        self.key.touch(0o600)
        self.key.write_text(identity)
        return self._run("-d", "-i", str(self.key), data=data)


def there_and_back(other, data: bytes, readers: list[Identity], reader: Identity, stranger: Identity):
    """Ours is opened there, theirs is opened here, and a stranger opens neither."""
    ours = age.encrypt(data, [each.recipient for each in readers])
    assert other.open(ours, reader.to_text()) == data
    theirs = other.seal(data, [each.recipient.text for each in readers])
    assert age.stanza_count(theirs) >= len(readers)
    assert age.decrypt(theirs, [reader]) == data
    with contextlib.suppress(Refused):
        other.open(ours, stranger.to_text())
        raise AssertionError("a stranger has opened what Keyhole sealed")
    with contextlib.suppress(NotFound):
        age.decrypt(theirs, [stranger])
        raise AssertionError("a stranger has opened what another library sealed")


def campaign(rounds: int, seed: int) -> dict[str, int]:
    """Round trips by library: each is one file there and one back."""
    choice = random.Random(seed)
    counts = {"pyrage": 0, "age-encryption": 0, "age": 0}
    people = [age.generate() for _ in range(12)]
    with tempfile.TemporaryDirectory() as folder, Npm.running() as npm:
        others = {"pyrage": Pyrage(), "age-encryption": npm, "age": Program(Path(folder))}
        for number in range(rounds):
            size = EDGES[number // 2 % len(EDGES)] if number % 2 else choice.randrange(CHUNK + 2)
            data = choice.randbytes(size)
            *readers, stranger = choice.sample(people, choice.randint(1, 5) + 1)
            for name, other in others.items():
                if name != "age" or number % EVERY == 0:
                    there_and_back(other, data, readers, choice.choice(readers), stranger)
                    counts[name] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    counts = campaign(options.rounds, options.seed)
    done = ", ".join(f"{count} with {name}" for name, count in counts.items())
    print(f"round trips: {done}; all bytes the same, no stranger let in; {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
