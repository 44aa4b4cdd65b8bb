"""Services that sign, bound at the command line."""

import json

import pytest

from cli_driver import ok, run

ADD = ("service", "add", "s3", "--host", "minio.example:9000", "--secret", "minio/keys")


@pytest.fixture
def keys(vault):
    ok("set", "minio/keys", "--json-in", stdin=json.dumps({"access_key_id": "AKIA0", "secret_access_key": "x" * 40}))
    return vault


def test_a_service_signs_for_whatever_the_client_signed_or_for_one_region_alone(keys):
    ok(*ADD, "--sigv4")
    assert ok("service", "show", "s3", "--json").json["inject"] == {"kind": "sigv4"}
    ok(*ADD, "--sigv4", "--region", "eu-central-1", "--aws-service", "s3")
    shown = ok("service", "show", "s3", "--json").json["inject"]
    assert shown == {"kind": "sigv4", "region": "eu-central-1", "service": "s3"}


@pytest.mark.parametrize(
    "ways",
    [["--bearer", "--region", "eu-central-1"], ["--sigv4", "--region", "e u"], ["--sigv4", "--bearer"]],
)
def test_a_way_of_signing_that_makes_no_sense_is_refused(keys, ways):
    assert run(*ADD, *ways).code == 3
    assert run("service", "show", "s3").code == 5
