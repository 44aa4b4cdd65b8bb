"""Behind the subjects: nginx that answers 401 unless the real credential arrives, and a source of events."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import trustme

from bench.machine import free_port, pinned

CREDENTIAL = "sk_live_" + "9f3cA7eB21d84066" * 2
NAME = "upstream.bench.test"
EVENTS, EVENT_GAP = 20, 0.01
LARGE = 100 * 1000 * 1000

_FRAME = """
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log crit;
daemon off;
master_process off;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_max_temp_file_size 0;
    ssl_protocols TLSv1.3 TLSv1.2;
    {body}
}}
"""


class Nginx:
    """An nginx of one worker on a core.

    Args:
        folder: for its files.
        core: where it runs.
        body: of the ``http`` block.
        port: one of its listeners, to know when it is there.
    """

    def __init__(self, folder: Path, core: set[int], body: str, port: int) -> None:
        folder.mkdir(exist_ok=True)
        path = folder / "nginx.conf"
        path.write_text(_FRAME.format(folder=folder, body=body))
        files = ("-p", str(folder), "-e", str(folder / "error.log"), "-c", str(path))
        self._process = subprocess.Popen(pinned(core, nginx_path(), *files))
        self.pid = self._process.pid
        wait_for(port, self._process)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def nginx_path() -> str:
    """The program, which is often outside of an ordinary user's PATH."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("nginx is not installed, and it is what everything is measured against")
    return found


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something listens at the port."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"{process.args!r} did not start")


class Pki:
    """A CA, and a certificate of it for the upstream and for nginx as a subject."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert(NAME)
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        Path(self.cert).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.key)


class Upstream:
    """nginx with a small and a large file, and events, all behind the credential; plain and TLS."""

    def __init__(self, folder: Path, core: set[int], large: int = LARGE) -> None:
        folder.mkdir(exist_ok=True)
        self.pki = Pki(folder)
        root = folder / "root"
        root.mkdir()
        (root / "small").write_bytes((b"0123456789abcdef" * 64)[:1024])
        line = b'{"id": 12345, "object": "event", "text": "The quick brown fox jumps over the lazy dog"}\n'
        (root / "large").write_bytes((line * (large // len(line) + 1))[:large])
        self.plain, self.tls = free_port(), free_port()
        self._events = Events()
        guard = f'if ($http_authorization != "Bearer {CREDENTIAL}") {{ return 401; }}'
        body = f"""
    server {{
        listen 127.0.0.1:{self.plain} backlog=4096;
        listen 127.0.0.1:{self.tls} ssl backlog=4096;
        ssl_certificate {self.pki.cert};
        ssl_certificate_key {self.pki.key};
        open_file_cache max=10;
        location / {{ {guard} root {root}; }}
        location /events {{
            {guard}
            proxy_pass http://127.0.0.1:{self._events.port};
            proxy_http_version 1.1;
            proxy_buffering off;
        }}
    }}"""
        self.nginx = Nginx(folder, core, body, self.plain)

    def close(self) -> None:
        self.nginx.close()
        self._events.close()


class Events:
    """Sends events that carry the time at which they were sent, in nanoseconds of the monotonic clock."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(EVENTS):
                event = b"data: %d\n\n" % time.monotonic_ns()
                sock.sendall(b"%x\r\n%b\r\n" % (len(event), event))
                time.sleep(EVENT_GAP)
            sock.sendall(b"b\r\ndata: end\n\n\r\n0\r\n\r\n")

    def close(self) -> None:
        self._listener.close()
