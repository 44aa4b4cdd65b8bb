"""The first call of a newcomer: the README followed literally in an empty home, counted and timed.

    python tests/campaigns/first_call.py             # builds the wheel, installs it from it into a new environment
    python tests/campaigns/first_call.py --installed # with the program that is installed already

The machine has no keychain, the home is empty, and a person types. `api.stripe.com` is a server on a public address of
a network namespace of its own, which answers only to the right key; nothing else differs from the real thing.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import pty
import select
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import trustme

ROOT = Path(__file__).parents[2]
HOST, ADDRESS = "api.stripe.com", "93.184.215.14"
KEY = "sk_test_51FirstCall0123456789abcdefghijkl"
PASSPHRASE = "correct horse battery staple"
CALL = 'curl -sS https://api.stripe.com/v1/balance -H "Authorization: Bearer $STRIPE_API_KEY"'
ENTER = ["unshare", "--net", "--map-root-user"]


class _Api(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        body = json.dumps({"balance": 4200} if right else {"error": "wrong key"}).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(folder: Path) -> None:
    """Stripe, for this namespace."""
    for words in (["link", "set", "lo", "up"], ["addr", "add", f"{ADDRESS}/32", "dev", "lo"]):
        subprocess.run(["ip", *words], check=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    server = http.server.ThreadingHTTPServer((ADDRESS, 443), _Api)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def typed(command: list[str], env: dict[str, str], answers: list[tuple[str, str]]) -> str:
    """A command on a terminal, with a person who answers. What was seen."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=env,
        cwd=env["HOME"],
    )
    os.close(follower)
    seen, waiting, answered = "", list(answers), 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                seen += os.read(leader, 4096).decode(errors="replace")
            except OSError:  # the last of the other side is gone
                break
        elif process.poll() is not None:
            break
        if waiting and waiting[0][0] in seen[answered:]:
            answered = len(seen)
            os.write(leader, f"{waiting.pop(0)[1]}\n".encode())
    os.close(leader)
    if process.wait(60):
        raise SystemExit(f"{command}: {seen}")
    return seen


def play(folder: Path, program: str) -> dict[str, object]:
    """The two commands, inside the namespace."""
    serve(folder)
    home = folder / "home"
    home.mkdir(mode=0o700)
    env = {
        "PATH": f"{Path(program).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TERM": "xterm",
        "NO_COLOR": "1",
        "KEYHOLE_RESOLVE": f"{HOST}:{ADDRESS}",
        "KEYHOLE_UPSTREAM_CA": str(folder / "ca.pem"),
    }
    begin = time.monotonic()
    asked = [("New passphrase: ", PASSPHRASE), ("The same again: ", PASSPHRASE), ("The key for Stripe: ", KEY)]
    added = typed([program, "add", "stripe"], env, asked)
    middle = time.monotonic()
    ran = typed([program, "run", "--", "sh", "-c", CALL], env, [("Passphrase of the vault: ", PASSPHRASE)])
    end = time.monotonic()
    for seen in (added, ran):
        if KEY in seen or PASSPHRASE in seen:
            raise SystemExit("a value was shown")
    if '{"balance": 4200}' not in ran:
        raise SystemExit(f"the call did not succeed: {ran}")
    return {"commands": 2, "add": middle - begin, "run": end - middle, "transcript": added + ran}


def installed_from_wheel(folder: Path) -> tuple[str, float]:
    """`pip install` of the wheel into a new environment; the program and the seconds that it took."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [wheel] = folder.glob("keyhole-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    begin = time.monotonic()
    subprocess.run([str(folder / "venv/bin/pip"), "install", "--quiet", str(wheel)], check=True)
    return str(folder / "venv/bin/keyhole"), time.monotonic() - begin


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--installed", action="store_true")
    parser.add_argument("--inside", nargs=2, metavar=("FOLDER", "PROGRAM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(play(Path(options.inside[0]), options.inside[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, took = str(Path(sys.executable).with_name("keyhole")), 0.0
        if not options.installed:
            program, took = installed_from_wheel(folder)
        command = [*ENTER, sys.executable, __file__, "--inside", name, program]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120)
        found = json.loads(done.stdout)
        print(found.pop("transcript"))
        add, run = found["add"], found["run"]
        print(f"pip install: {took:.1f} s; keyhole add: {add:.1f} s; keyhole run with a call: {run:.1f} s")
        print(f"{found['commands']} commands after the install, {took + add + run:.1f} s in all")


if __name__ == "__main__":
    main()
