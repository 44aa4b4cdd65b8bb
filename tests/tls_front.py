"""A port of loopback that leads to the PostgreSQL of the tests, in TLS for whoever asks for it.

The server itself is built without TLS, so this takes its side of the handshake (PostgreSQL's protocol, SSLRequest).
"""

import contextlib
import socket
import socketserver
import ssl
import threading

import postgres_server

_ASKS_FOR_TLS = bytes.fromhex("0000000804d2162f")
_READ = 65_536


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(20)
        self.server.seen.append(first := self.request.recv(8))
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as target:
            target.connect(f"{postgres_server.socket_folder()}/.s.PGSQL.5432")
            target.settimeout(20)
            if first == _ASKS_FOR_TLS:
                self.request.sendall(b"S")
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
            else:
                target.sendall(first)
            back = threading.Thread(target=_pump, args=(target, self.request), daemon=True)
            back.start()
            _pump(self.request, target)
            back.join()

    def finish(self):
        self.request.close()


def _pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(_READ):
            target.sendall(data)
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextlib.contextmanager
def serving(authority, name="localhost", *, ask=False):
    """Runs one; gives its port, and what each client sent first.

    Args:
        authority: who signs its certificate.
        name: that is in it.
        ask: clients have to prove themselves too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if ask:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.context, server.seen = context, []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1], server.seen
        finally:
            server.shutdown()
            thread.join()


def used_tls(seen):
    """Whether every client asked for TLS."""
    return bool(seen) and set(seen) == {_ASKS_FOR_TLS}
