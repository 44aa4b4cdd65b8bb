"""Private keys: text armours of all kinds, age identities, PuTTY's files, and DER in the open (RFC 5958)."""

from __future__ import annotations

import re

from .shape import Shape

_RUN = re.compile(rb"[A-Za-z0-9+/]+")
_BODY = 600  # bytes after the header within which a key's own text begins
_JWK = 2400  # bytes of the members of a JWK before or after one of them
_LINE = 24  # characters of it that stand together


def _has_body(match: re.Match[bytes]) -> bool:
    """A header alone, as in a program that looks for one, is no key; nor is one that is filled with one letter."""
    text = match.string[match.end("head") : match.end("head") + _BODY]
    text = text.partition(b"-----")[0]
    return any(len(run) >= _LINE and len(set(run)) > _LINE // 3 for run in _RUN.findall(text))


def _is_jwk(match: re.Match[bytes]) -> bool:
    return b'"kty"' in match.string[max(match.start() - _JWK, 0) : match.end() + _JWK]


# To the footer, if there is one near enough; else what can belong to it. A text of JSON that was cut off ends with its
# quote, unless the next one is a line of the same key, as in lists and in texts that a program puts together.
_QUOTE = r"\"(?=[\s+.,\\]{0,80}\"[A-Za-z0-9+/=]{1,76}(?:\\|\"(?!\s?:))|[A-Za-z0-9+/=]{1,76}(?:\\|\"(?!\s?:)))"
_ARMOUR = (
    r"(?P<head>-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----)"
    r"(?:[^-]{0,16384}(?:-(?!----)[^-]{0,256}){0,64}(?=-----END)"
    rf"|(?:(?>[^-\"{{}}]{{1,4096}})|-(?!----)|{_QUOTE}){{0,128}})"
)

PRIVATE_KEYS = (
    Shape(
        "private-key",
        "private key",
        ("-----begin ",),
        _ARMOUR,
        (
            "-----BEGIN PRIVATE KEY-----\n<m64>\n<m64>\n-----END PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,<H32>\n\n<m64>\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\\n<m64>\\n<m64>\\n-----END ENCRYPTED PRIVATE KEY-----\\n",
            '"-----BEGIN EC PRIVATE KEY-----\\n" +\n    "<m64>\\n" +\n    "<m64>\\n"',
            "  -----BEGIN OPENSSH PRIVATE KEY-----\r\n  b3BlbnNzaC1rZXktdjEA<m44>\r\n",
            "-----BEGIN DSA PRIVATE KEY-----\n<m64>\n",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n<m64>\n=<m4>\n-----END PGP",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\n<m64>\n-----END PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----\n<m64>\n-----END CERTIFICATE-----",
            "-----BEGIN OPENSSH PRIVATE KEY----------END OPENSSH PRIVATE KEY-----",
            'if text.startswith("-----BEGIN PRIVATE KEY-----"):\n    return "a private key, of course"',
            "-----BEGIN PRIVATE KEY-----\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n-----END PRIVATE KEY-----",
            "-----BEGIN AGE ENCRYPTED FILE-----\n<m64>\n-----END AGE ENCRYPTED FILE-----",
        ),
        edge=False,
        bits=0,
        check=_has_body,
    ),
    Shape(
        "private-key-ssh2",
        "private key in the form of SSH2",
        ("---- begin ssh2 ",),
        r"(?P<head>---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----)[^-]{0,16384}",
        ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: none\n<m64>\n<m64>\n",),
        ("---- BEGIN SSH2 PUBLIC KEY ----\n<m64>\n",),
        edge=False,
        bits=0,
        check=_has_body,
    ),
    Shape(
        "putty-private-key",
        "private key in the form of PuTTY",
        ("private-lines: ",),
        r"Private-Lines: \d{1,4}\s[A-Za-z0-9+/=\s]{24,8192}",
        ("PuTTY-User-Key-File-3: ssh-ed25519\nPublic-Lines: 1\n<m64>\nPrivate-Lines: 1\n<m48>\nPrivate-MAC: <h64>\n",),
        ("PuTTY-User-Key-File-2: ssh-rsa\nPublic-Lines: 2\n<m64>\n<m16>\n",),
        edge=False,
        bits=0,
    ),
    Shape(
        "age-secret-key",
        "identity of age",
        ("age-secret-key-",),
        r"(?i:AGE-SECRET-KEY-(?:PQ-)?1[0-9a-z]{50,72})",
        ("# created: today\nAGE-SECRET-KEY-1<B58>\n", "AGE-SECRET-KEY-PQ-1<B58>", "age-secret-key-1<b58>"),
        (
            "a file begins with AGE-SECRET-KEY-1",
            "AGE-SECRET-KEY-1XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        ),
    ),
    Shape(
        "private-key-der",
        "private key in DER",
        (
            "\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
            "\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
            "\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
            "\x02\x01\x00\x30\x05\x06\x03\x2b\x65",
        ),
        r"[\x00-\xff]{32}",
        ("\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20<m32>",),
        ("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00<m32>",),
        edge=False,
        bits=0,
    ),
    Shape(
        "private-jwk",
        "private key as a JWK",
        ('"d":"', '"d": "'),
        r'"d": ?"(?P<v>[A-Za-z0-9_-]{40,800})"',
        (
            '{"kty":"OKP","crv":"Ed25519","x":"<m43>","d":"<m43>"}',
            '{"crv": "Ed25519", "d": "<m43>", "kty": "OKP"}',
        ),
        ('{"d": "<m43>", "kind": "draft"}', '{"kty":"OKP","crv":"Ed25519","x":"<m43>"}'),
        edge=False,
        check=_is_jwk,
    ),
    Shape(
        "wireguard-private-key",
        "private key of WireGuard",
        ("privatekey",),
        r"PrivateKey\s{0,4}=\s{0,4}(?P<v>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)",
        ("[Interface]\nPrivateKey = <m42>A=\n",),
        ("[Peer]\nPublicKey = <m42>A=\n",),
        edge=False,
    ),
)
