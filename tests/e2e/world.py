"""A vault made by the real command line, upstreams with TLS, and real clients as children of `keyhole run`."""

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import trustme

import nursery
from e2e.double import Handler

ROOT = Path(__file__).parents[2]
KEYHOLE = str(Path(sys.executable).with_name("keyhole"))
API = "api.example.test"
GIT = "git.example.test"
KEY = "sk_e2e_Zm9+/x7Q'\"&<%20>9f8e7d6c5b4a"  # every escape has something to do
TOKEN = "ghx_e2e_0123456789abcdefghijklmnopqrstuv"
PLACEHOLDER = "sk_e2e_keyhole_placeholder_00000001"


def forms(value: str, *, whole: bool = False):
    """The value as it could turn up: plain and in the encodings that answers are scrubbed of.

    `whole` gives them as a server would write them, with a byte or two before the value in base64; else what of them
    does not depend on such neighbours.
    """
    raw = value.encode()
    yield raw
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b":" * shift + raw)
            yield text if whole else text.rstrip(b"=")[4 if shift else 0 : -4]
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for safe in ("", "/", "+/"):
        yield quote(raw, safe=safe).encode()
        yield quote(raw, safe=safe).lower().encode()
    yield "".join(f"%{byte:02x}" for byte in raw).encode()
    yield json.dumps(value).strip('"').encode()
    yield json.dumps(value, ensure_ascii=False).strip('"').encode()
    yield "".join(f"\\u{ord(char):04x}" for char in value).encode()
    yield "".join(f"&#{ord(char)};" for char in value).encode()
    yield "".join(f"&#x{ord(char):x};" for char in value).encode()
    yield value.encode("utf-16-le")
    yield value.encode("utf-16-be")


def held(value: str, text: bytes) -> list[bytes]:
    """The forms of the value that stand in a text."""
    return [form for form in forms(value) if form in text]


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Said:
    """An answer; a body of several parts is sent in chunks."""

    body: bytes | list[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Upstream:
    """An HTTPS server on loopback that writes down what reaches it.

    `repositories` is where git looks, with `git_token` as its password. `sites` answer in its place for the hosts that
    they are of, `pages` at paths of every host.
    """

    def __init__(
        self,
        authority: trustme.CA,
        *names: str,
        repositories: Path | None = None,
        git_token: str = TOKEN,
        sites: Mapping[str, Callable[[Seen], Said]] | None = None,
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names, *(sites or {})).configure_cert(context)
        self.seen: list[Seen] = []
        self.repositories = repositories
        self.git_token = git_token
        self.sites = sites or {}
        self.pages: dict[str, Callable[[Seen], Said]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"upstream": self}))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(Handler):
    upstream: Upstream

    def _serve(self):
        body = self.read_body()
        self.upstream.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
        path = urlsplit(self.path).path
        if site := self.upstream.sites.get(self.headers["Host"]):
            said = site(self.upstream.seen[-1])
            self._answer(said.status, said.body, said.headers)
        elif page := self.upstream.pages.get(path):
            said = page(self.upstream.seen[-1])
            self._answer(said.status, said.body, said.headers)
        elif path.startswith("/repositories/"):
            self._git(body)
        elif path == "/echo":
            self._answer(200, echo(self.headers.get("Authorization", "")))
        elif self.headers.get("Authorization") != f"Bearer {KEY}":
            self._answer(401, b'{"error": "unknown key"}')
        else:
            self._answer(200, json.dumps({"ok": True, "got": len(body)}).encode())

    do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815  # names of http.server

    def _answer(self, status: int, body: bytes | list[bytes], headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        if isinstance(body, bytes):
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in body:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def _git(self, body: bytes):
        expected = base64.b64encode(f"x-access-token:{self.upstream.git_token}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            self._answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="git"'})
            return
        url = urlsplit(self.path)
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.upstream.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REMOTE_USER": "x-access-token",
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path.removeprefix("/repositories"),
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200 OK").split()[0])
        self._answer(status, answer, fields)


def echo(sent: str) -> bytes:
    """All that a careless server could make of a header and of its second word."""
    text = sent.encode("latin-1").decode(errors="replace")
    words = [text, text.partition(" ")[2]]
    parts = [form.decode("latin-1") for word in words if word for form in forms(word, whole=True)]
    return "\n".join([text, *parts]).encode("latin-1", "replace")


@dataclass
class World:
    """A place with a vault, an agent `coder` and what it may use."""

    folder: Path
    env: dict[str, str]
    upstream: Upstream
    stranger: Upstream
    authority: trustme.CA
    program: str  # what a test that is not about the process itself starts
    names: dict[str, str] = field(default_factory=dict)
    values: list[str] = field(default_factory=lambda: [KEY, TOKEN])

    @property
    def base(self) -> str:
        return f"https://{API}:{self.upstream.port}"

    def keyhole(self, *words: str, given: bytes | None = None, code: int | None = 0, real: bool = False, **env: str):
        done = subprocess.run(
            [KEYHOLE if real else self.program, *words],
            input=given or b"",
            env=self.env | env,
            cwd=self.folder / "work",
            capture_output=True,
            timeout=60,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def run(self, *command: str, code: int | None = 0, options: tuple[str, ...] = (), real: bool = False, **env: str):
        """`keyhole run` for the agent `coder`; no value may ever be in what it prints."""
        done = self.keyhole("run", "--agent", "coder", *options, "--", *command, code=code, real=real, **env)
        for value in self.values:
            assert not held(value, done.stdout + done.stderr)
        return done


def make_world(folder: Path, *, furnished: bool = True) -> World:
    good, bad = trustme.CA(), trustme.CA()
    for name in ("home", "work", "vault", "runtime", "repositories", "bin"):
        (folder / name).mkdir(mode=0o700)
    (folder / "upstream-ca.pem").write_bytes(good.cert_pem.bytes())
    (folder / "unseal.key").write_bytes(os.urandom(32))
    (folder / "unseal.key").chmod(0o600)
    upstream = Upstream(good, API, GIT, repositories=folder / "repositories")
    stranger = Upstream(bad, API)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "XDG_RUNTIME_DIR": str(folder / "runtime"),
        "TMPDIR": str(folder / "runtime"),
        "KEYHOLE_HOME": str(folder / "vault"),
        "KEYHOLE_SEAL": f"keyfile:{folder / 'unseal.key'}",
        "KEYHOLE_UPSTREAM_CA": str(folder / "upstream-ca.pem"),
        "KEYHOLE_RESOLVE": f"{API}:127.0.0.1,{GIT}:127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    world = World(folder, env, upstream, stranger, good, str(nursery.program(folder / "bin")))
    world.keyhole("init", "--seal", env["KEYHOLE_SEAL"])
    if furnished:
        _furnish(world)
    return world


def _furnish(world: World):
    loopback = ("--allow-address", "127.0.0.1/32")
    world.keyhole("set", "api/key", given=KEY.encode())
    world.keyhole("set", "git/token", given=f"x-access-token:{TOKEN}".encode())
    world.keyhole(
        *("service", "add", "api", "--host", f"{API}:{world.upstream.port}"),
        *("--path", "/v1/**", "--path", "/echo", "--secret", "api/key", "--bearer", *loopback),
    )
    world.keyhole(
        *("service", "add", "git", "--host", f"{GIT}:{world.upstream.port}"),
        *("--secret", "git/token", "--basic", *loopback),
    )
    world.keyhole("agent", "add", "coder")
    world.keyhole("grant", "coder", "api")
    world.keyhole("grant", "coder", "git")


@cache
def node() -> str:
    """A Node that knows the proxy variables."""
    ours = ROOT / ".cache/node/node_modules/.bin/node"
    for program in (str(ours), "node"):
        try:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        if int(said.strip().removeprefix("v").partition(".")[0]) >= 22:
            return program
    raise AssertionError("the test of fetch needs Node 22 or newer: make test gets it")
