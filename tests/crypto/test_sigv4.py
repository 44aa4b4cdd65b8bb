"""AWS's signatures, held against those of AWS's own library."""

import pytest

from keyhole.crypto.sigv4 import authorization_of_post
from keyhole.net.ask import parse_https


@pytest.mark.parametrize(
    "url",
    ["https://ssm.eu-central-1.amazonaws.com/", "https://[2001:db8::7]/", "https://[2001:db8::7]:4566/of/aws"],
)
def test_a_signature_is_the_one_that_botocore_makes(url):
    pytest.importorskip("botocore")
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("POST", url, data=b'{"Name": "x"}')
    request.headers["content-type"] = "application/x-amz-json-1.1"
    request.headers["x-amz-target"] = "AmazonSSM.GetParameter"
    SigV4Auth(Credentials("AKIAEXAMPLE", "of/it+", "session"), "ssm", "eu-central-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    theirs, place = headers.pop("authorization"), parse_https(url)
    ours = authorization_of_post(
        {**headers, "host": place.header},
        place.target,
        b'{"Name": "x"}',
        key_id="AKIAEXAMPLE",
        secret=b"of/it+",
        region="eu-central-1",
        service="ssm",
    )
    assert ours == theirs
