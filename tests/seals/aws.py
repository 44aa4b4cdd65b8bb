"""A stand-in for AWS KMS: moto's server, with real boto3 in front of it."""

import contextlib

import boto3
from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "stand-in",
    "AWS_SECRET_ACCESS_KEY": "stand-in",
    "AWS_EC2_METADATA_DISABLED": "true",
}
REGION = "eu-central-1"


@contextlib.contextmanager
def aws_stand_in():
    """Its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


def client(url):
    """boto3's client for it."""
    session = boto3.session.Session("stand-in", "stand-in", region_name=REGION)
    return session.client("kms", endpoint_url=url)


def make_key(url):
    """The id of a new key."""
    return client(url).create_key()["KeyMetadata"]["KeyId"]


def spec_of(url, key):
    """What ``--seal`` takes, without the name."""
    return f"{key}?region={REGION}&endpoint={url}"
