"""A way to the PostgreSQL of the tests that can be held up, shut, or let lead into a black hole."""

import contextlib
import select
import socket
import threading

import postgres_server


class Gate:
    """Listens on a port of loopback and passes on what it is sent.

    Attributes:
        url: for ``connection_url``.
        reached: set when a message is held up.
        count: messages of clients that came.
    """

    def __init__(self):
        self._target = f"{postgres_server.socket_folder()}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._port = self._listener.getsockname()[1]
        self._filling = []
        self._open = set()
        self._held = None
        self._lock = threading.Lock()
        self.reached = threading.Event()
        self._resume = threading.Event()
        self._passes = False
        self.count = 0
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def url(self):
        return f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{self._port}/vault?sslmode=disable"

    def hold(self, after, *, answer=False):
        """Hold up the message that comes after so many others, or let it through and hold up its answer."""
        with self._lock:
            self.reached.clear()
            self._resume.clear()
            self.count, self._held = 0, (after, answer)

    def release(self):
        """Drop what is held and all that is open; from now on everything is passed on."""
        with self._lock:
            self._held = None
        self._passes = False
        self._resume.set()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def pass_on(self):
        """Let go what is held up, and all that follows."""
        with self._lock:
            self._held = None
        self._passes = True
        self._resume.set()

    def shut(self):
        """Refuse everybody, and drop who is there."""
        self._stop_listening()
        self.release()

    def swallow(self):
        """Answer no packet that asks for a connection, as a firewall that drops them; drop who is there."""
        self.shut()
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=0)
        while True:  # a full queue of connections that nobody accepts: Linux drops what comes then
            filler = socket.socket()
            filler.setblocking(False)
            self._filling.append(filler)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self._port))
            if not select.select([], [filler], [], 0.2)[1]:
                return

    def open(self):
        """Pass everything on again."""
        self._stop_listening()
        for filler in self._filling:
            filler.close()
        self._filling = []
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self):
        self.shut()
        for filler in self._filling:
            filler.close()

    def _stop_listening(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or whoever waits in accept would keep it open
        self._listener.close()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._target)
                except OSError:  # the database has gone
                    client.close()
                    server.close()
                    continue
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client, server):
        """One connection, in turns: PostgreSQL answers each message before the next."""
        self._open |= {client, server}
        holding = False
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for sock in ready:
                    data = sock.recv(65_536)
                    if not data:
                        return
                    if sock is client:
                        hit, answer = self._counted()
                        if hit and not answer and not self._waited():
                            return
                        holding = hit and answer
                        server.sendall(data)
                    else:
                        if holding and not self._waited():
                            return
                        holding = False
                        client.sendall(data)
        except OSError:
            pass
        finally:
            self._open -= {client, server}
            client.close()
            server.close()

    def _counted(self):
        with self._lock:
            self.count += 1
            if self._held is None:
                return False, False
            after, answer = self._held
            hit = self.count == after + 1
            return hit, answer

    def _waited(self):
        """Hold it up; whether it may go on."""
        self.reached.set()
        self._resume.wait()
        return self._passes
