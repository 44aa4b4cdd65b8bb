"""`Client.tool` of the TypeScript SDK: with the frameworks that it is for, and its scrubber against that of Python."""

import base64
import json
import shutil
import subprocess

import pytest

from cli_driver import environment, serving
from e2e.world import node as newer
from keyhole import Client
from keyhole.scrub import Scrubber
from sdk import built

PACKAGES = built.ROOT / ".cache/frameworks/node/node_modules"
HERE = built.ROOT / "tests/sdk/frameworks"
NAMES = ("ai", "zod", "@modelcontextprotocol")
VALUE = "xoxb-0123456789"
VALUES = [
    "sk_test_51Example00",
    "p+ss/w=rd <&> \"quoted\" 'x'",
    "ümlaut-パス-0123",
    "line one\nline two\nline three",
    "a%20b%2Bc-already-escaped",
]


def shapes(value):
    """The value as software shows it."""
    raw = value.encode()
    yield from (value, value.upper(), value.lower(), raw.hex(), raw.hex(":").upper(), " ".join(f"{b:02x}" for b in raw))
    for before in ("", "a", "ab"):
        standard = base64.b64encode(before.encode() + raw + b"!").decode()
        yield from (standard, standard.replace("+", "-").replace("/", "_"), standard.replace("/", "\\/"))
        yield base64.b64encode(standard.encode()).decode()
    yield "\n".join(standard[at : at + 60] for at in range(0, len(standard), 60))
    long = base64.b64encode(b"x" * 40 + raw * 3).decode()
    yield "\r\n".join(long[at : at + 64] for at in range(0, len(long), 64))
    yield from (json.dumps(value), json.dumps(json.dumps({"v": value})))
    yield "".join(f"\\u{ord(char):04x}" for char in value)
    yield "".join(f"%{byte:02X}" for byte in raw)
    yield "".join(f"%25{byte:02x}" for byte in raw)
    yield "".join(f"&#{ord(char)};" for char in value)
    yield "".join(f"&#x{ord(char):X};" for char in value)
    yield value.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    yield from (value.replace(" ", "+"), ", ".join(map(str, raw)), ",".join(f"0x{b:02x}" for b in raw))
    yield from (
        value[: len(value) * 3 // 4 + 1],
        value[: len(value) // 2],
        f"<![CDATA[{value[:9]}]]><![CDATA[{value[9:]}]]>",
    )


def test_its_scrubber_finds_what_that_of_python_finds():
    pairs = [(value, f'{{"said": [{shape}], "x": "{shape}"}}') for value in VALUES for shape in shapes(value)]
    found = built.answer("scrubbed.js", given=pairs)
    wanted = [Scrubber.compile([value.encode()]).text(text.encode()).decode() for value, text in pairs]
    wrong = [(pair, a, b) for pair, a, b in zip(pairs, found, wanted, strict=True) if a != b]
    assert not wrong, wrong[0]
    assert sum(text != clean for (_, text), clean in zip(pairs, found, strict=True)) > len(pairs) * 3 // 4


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder of a program that has the SDK and the frameworks."""
    assert PACKAGES.is_dir(), f"there are no packages in {PACKAGES}: make test gets them"
    folder = tmp_path_factory.mktemp("project")
    packages = folder / "node_modules"
    for scope in ("@keyhole", "@types"):
        (packages / scope).mkdir(parents=True)
    (packages / "@keyhole/sdk").symlink_to(built.built())
    (packages / "@types/node").symlink_to(built.built() / "node_modules/@types/node")
    for name in NAMES:
        (packages / name).symlink_to(PACKAGES / name)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


@pytest.fixture(scope="module")
def world(project):
    folder = project
    env = environment(KEYHOLE_HOME=str(folder / "home"), HOME=str(folder))
    with serving("--dev", "--dev-root-token-id", "root", env=env) as (_, told), Client(told["api"], token="root") as kh:
        kh.write("secret/data/slack/bot-token", {"data": {"value": VALUE}})
        kh.write("secret/data/db/prod", {"data": {"username": "u", "password": "p4ssw0rd-0123-4567890"}})
        kh.write("cubbyhole/creds", {"password": "leased-012345678"})
        yield folder, env | {"KEYHOLE_ADDR": told["api"], "KEYHOLE_TOKEN": "root"}, kh


def test_frameworks_never_see_a_value(world):
    folder, env, kh = world
    shutil.copy(HERE / "tools.test.mjs", folder)
    command = [newer(), "--test", "--test-reporter=spec", "tools.test.mjs"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert VALUE.encode() not in done.stdout + done.stderr
    records = kh.read("sys/audit-log", secret="slack/bot-token", limit=500).data["records"]
    assert {"slack.send", "slack.fail"} <= {record.get("tool") for record in records}


def test_frameworks_know_the_types_of_a_tool(project):
    shutil.copy(HERE / "types.ts", project)
    options = "--noEmit --strict --skipLibCheck --module NodeNext --target ES2022 --lib ES2023,ESNext.Disposable,DOM"
    command = [built.BUILT / "node_modules/.bin/tsc", *options.split(), "types.ts"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_a_text_in_pieces_is_scrubbed_as_the_whole_is():
    pairs = [(value, f"it is {shape}, {value[:9]} {shape}") for value in VALUES[:1] for shape in shapes(value)]
    assert built.answer("pieced.js", given=pairs) == [0] * len(pairs)
