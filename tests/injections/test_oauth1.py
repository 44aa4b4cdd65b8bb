"""OAuth 1.0: the examples of its specifications and of an API that uses it."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Terms, inject, needs_content
from keyhole.injections.oauth1 import base_string

FORM = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
FIELDS = {
    "consumer_key": b"xvz1evFS4wEEPTGEFPHBog",
    "consumer_secret": b"kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
    "token": b"370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
    "token_secret": b"LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
}


class Nonce(bytes):
    """A nonce that is written as it is."""

    __slots__ = ()

    def hex(self, *_args):
        return self.decode()


def signed(
    message: Message,
    fields: dict[str, bytes] = FIELDS,
    *,
    nonce: bytes = b"kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
    now: float = 1318622958.9,
    **options: str,
) -> dict[str, str]:
    how = Inject.from_data({"kind": "oauth1", **options})
    sent = next(inject(message, how, Terms(fields, now, nonce=Nonce(nonce))))
    value = (sent.get(b"authorization") or b"").decode()
    assert value.startswith("OAuth ")
    return {name: unquote(text) for name, text in re.findall(r'(\w+)="([^"]*)"', value)}


def update(
    *headers: tuple[bytes, bytes], target: bytes = b"/1.1/statuses/update.json?include_entities=true"
) -> Message:
    message = Message("POST", "https", "api.twitter.com", 443, target, [FORM, *headers])
    assert needs_content(message, Inject.from_data({"kind": "oauth1"}))
    message.content = b"status=Hello%20Ladies%20%2B%20Gentlemen%2C%20a%20signed%20OAuth%20request%21"
    return message


def test_the_base_string_is_the_one_of_the_rfc():
    # RFC 5849, section 3.4.1.1
    message = Message("POST", "http", "example.com", 80, b"/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b", [])
    parameters = [
        *((b"b5", b"=%3D"), (b"a3", b"a"), (b"c@", b""), (b"a2", b"r b"), (b"c2", b""), (b"a3", b"2 q")),
        *((b"oauth_consumer_key", b"9djdj82h48djs9d2"), (b"oauth_token", b"kkk9d7dh3k39sjv7")),
        *((b"oauth_signature_method", b"HMAC-SHA1"), (b"oauth_timestamp", b"137131201"), (b"oauth_nonce", b"7d8f3e4a")),
    ]
    assert base_string(message, parameters) == (
        b"POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D"
        b"%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1"
        b"%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )


def test_the_signature_is_the_one_of_the_first_specification():
    # OAuth Core 1.0, appendix A.5.3
    message = Message("GET", "http", "photos.example.net", 80, b"/photos?file=vacation.jpg&size=original", [])
    fields = {
        "consumer_key": b"dpf43f3p2l4k3l03",
        "consumer_secret": b"kd94hf93k423kf44",
        "token": b"nnch734d00sl2jdk",
        "token_secret": b"pfkkdhi9sl3r4s00",
    }
    said = signed(message, fields, nonce=b"kllo9940pd9333jh", now=1191242096)
    assert said["oauth_signature"] == "tR3+Ty81lMeYAr/Fid0kMTYa/WM="


def test_a_form_is_signed_as_in_the_documentation_of_an_api():
    said = signed(update())
    assert said["oauth_signature"] == "hCtSmYh+iHYCEqBWrE7C7hYmtUk="
    assert said["oauth_token"] == FIELDS["token"].decode()


def test_what_the_client_signed_is_gone_and_what_only_it_knows_stays():
    placeholder = (
        b'OAuth realm="Photos", oauth_consumer_key="placeholder", oauth_token="placeholder", oauth_verifier="a%2Bb", '
        b'oauth_signature_method="PLAINTEXT", oauth_signature="x%26y", oauth_nonce="n", oauth_timestamp="1"'
    )
    message = update((b"authorization", placeholder), target=b"/x?a=1&oauth_token=placeholder&b=2")
    said = signed(message)
    assert said["realm"] == "Photos"
    assert said["oauth_verifier"] == "a+b"
    assert said["oauth_signature_method"] == "HMAC-SHA1"
    assert "placeholder" not in said.values()
    assert message.target == b"/x?a=1&b=2"


def test_the_method_is_the_service_s_else_the_client_s():
    client = (b"authorization", b'OAuth oauth_signature_method="HMAC-SHA256"')
    assert signed(update(client))["oauth_signature_method"] == "HMAC-SHA256"
    assert signed(update(client), method="HMAC-SHA1")["oauth_signature_method"] == "HMAC-SHA1"


def test_a_client_without_a_token_signs_with_its_own_secret_alone():
    said = signed(update(), {name: FIELDS[name] for name in ("consumer_key", "consumer_secret")})
    assert "oauth_token" not in said


def test_a_secret_without_the_fields_is_refused_with_the_way_to_store_it():
    with pytest.raises(InvalidRequest, match="consumer_key"):
        signed(update(), {"value": b"something"})
