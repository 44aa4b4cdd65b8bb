"""Region and service are read off the hosts that botocore knows."""

from __future__ import annotations

from urllib.parse import urlsplit

import botocore.session
import pytest

from keyhole.injections.sigv4.place import place_of

REGION = "eu-central-1"


@pytest.mark.parametrize(
    "name", ["s3", "sts", "iam", "dynamodb", "bedrock-runtime", "ses", "iot-data", "lambda", "logs"]
)
def test_the_host_of_a_service_says_where_it_is(name):
    client = botocore.session.get_session().create_client(
        name, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="y"
    )
    host = urlsplit(client.meta.endpoint_url).hostname
    region = "us-east-1" if name == "iam" else REGION
    assert place_of(str(host)) == (region, client.meta.service_model.signing_name)


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("s3.amazonaws.com", ("us-east-1", "s3")),
        ("bucket.with.dots.s3.amazonaws.com", ("us-east-1", "s3")),
        ("bucket.s3.eu-west-3.amazonaws.com", ("eu-west-3", "s3")),
        ("bucket.s3-us-west-2.amazonaws.com", ("us-west-2", "s3")),
        ("bucket.s3.dualstack.ap-southeast-2.amazonaws.com", ("ap-southeast-2", "s3")),
        ("bucket.s3-fips.us-gov-west-1.amazonaws.com", ("us-gov-west-1", "s3")),
        ("bucket.s3.cn-north-1.amazonaws.com.cn", ("cn-north-1", "s3")),
        ("ap-1.s3-accesspoint.eu-west-1.amazonaws.com", ("eu-west-1", "s3")),
        ("b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", ("us-east-1", "s3express")),
        ("id.execute-api.eu-west-1.amazonaws.com", ("eu-west-1", "execute-api")),
        ("id.lambda-url.eu-west-1.on.aws", ("eu-west-1", "lambda")),
        ("search-x.eu-west-1.es.amazonaws.com", ("eu-west-1", "es")),
        ("streams.dynamodb.eu-west-1.amazonaws.com", ("eu-west-1", "dynamodb")),
        ("participant.connect.eu-west-1.amazonaws.com", ("eu-west-1", "execute-api")),
        ("bucket.s3-accelerate.amazonaws.com", None),
        ("minio.test", None),
        ("amazonaws.com", None),
        ("s3.eu-west-1.amazonaws.com.evil.test", None),
    ],
)
def test_a_host_says_where_it_is_or_nothing(host, place):
    assert place_of(host) == place
