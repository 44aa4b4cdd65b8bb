"""Names of header fields by which a request asks to be taken for another one. Pure."""

from __future__ import annotations

_PLAIN = bytes.maketrans(b"!#$%&'*+._`|~", b"-" * 13)

OVERRIDES = frozenset(
    {
        b"forwarded",
        b"x-real-ip",
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"http-method-override",
        b"x-original-method",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"script-name",
        b"x-script-name",
        b"path-info",
        b"x-host",
        b"x-original-host",
        b"x-http-host-override",
        b"x-http-path-override",
        b"x-http-url-override",
        b"x-override-url",
        b"x-proxy-url",
        b"x-original-path",
        b"x-rewrite-uri",
        b"x-request-uri",
        b"x-envoy-original-path",
        b"x-envoy-original-host",
        b"x-envoy-original-dst-host",
        b"x-envoy-external-address",
        b"x-middleware-subrequest",
        b"x-middleware-rewrite",
        b"x-forwarded",
        b"client-ip",
        b"x-client-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"x-cluster-client-ip",
        b"x-originating-ip",
        b"x-remote-ip",
        b"x-remote-addr",
        b"x-appengine-user-ip",
        b"x-azure-clientip",
    }
)
"""What names another method, URL, host or client: the rule judged the request as it stands."""
OVERRIDING = b"x-forwarded-"
"""How further ones begin."""


def plain_name(name: bytes) -> bytes:
    """A name in lower case as a server may read it that takes other characters for hyphens (CGI, WSGI)."""
    return name.translate(_PLAIN)
