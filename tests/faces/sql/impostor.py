"""A server that is not what it seems."""

import contextlib
import socket
import threading


class Impostor:
    """Answers as it is told and writes down what it hears; ``None`` waits for the client, ``...`` hangs up."""

    def __init__(self, *script):
        self.script = script
        self.heard = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *details):
        self._listener.close()
        self._thread.join(20)

    def _serve(self):
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(20)
                for step in self.script:
                    if step is ...:
                        return
                    if step is None:
                        self.heard += sock.recv(65536)
                    else:
                        sock.sendall(step)
                while piece := sock.recv(65536):
                    self.heard += piece
