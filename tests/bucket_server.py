"""An S3 of this machine for the tests: moto's server, which keeps to conditions of a write as AWS does."""

from __future__ import annotations

import contextlib
import http.client
import logging

from moto.server import ThreadedMotoServer


@contextlib.contextmanager
def serving(*buckets):
    """Gives the environment in which S3's clients find it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        for bucket in buckets:
            connection = http.client.HTTPConnection(host, port)
            connection.request("PUT", f"/{bucket}")
            assert connection.getresponse().status == 200
            connection.close()
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
        }
    finally:
        server.stop()
