"""A public key infrastructure, as Vault's engine of that name: roots, intermediates, certificates by roles, revocation.

Certificates are public, and so are the routes that give them and the lists of what was revoked. Private keys of issuers
never leave, but for one that is made as ``exported``; those of certificates are shown once and not kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from keyhole.core.request import Operation
from keyhole.engines import Engine, Field, Handler, Route
from keyhole.engines.pki import answering, authorities, configuring, issuing, reading, revoking, roles
from keyhole.engines.settings import fields

_READ, _WRITE, _LIST = Operation.READ, Operation.CREATE, Operation.LIST
_SUDO = frozenset({Operation.CREATE, Operation.UPDATE, Operation.DELETE})
_NAMES = (
    Field("common_name", "name of the subject", "string"),
    Field("alt_names", "host names and mail addresses", "list"),
    Field("ip_sans", "addresses", "list"),
    Field("uri_sans", "URIs", "list"),
    Field("other_sans", "OID;UTF8:TEXT", "list"),
    Field("serial_number", "of the subject", "string"),
    Field("exclude_cn_from_sans", "the common name is no alternative name", "boolean"),
)
_LIFE = (Field("ttl", "how long it lives", "duration"), Field("not_after", "when it ends, instead of ttl", "string"))
_SHAPE = (
    Field("format", "pem, der (in base64) or pem_bundle", "string"),
    Field("private_key_format", "der (as older programs read it) or pkcs8", "string"),
    Field("remove_roots_from_chain", "the chain ends before the root", "boolean"),
)
_KEY = (
    Field("key_type", "rsa, ec or ed25519", "string"),
    Field("key_bits", "of that type", "integer"),
    Field("key_name", "to find it by", "string"),
    Field("key_ref", "of an existing key", "string"),
)
_AUTHORITY = (
    *_NAMES,
    *_LIFE,
    *_SHAPE,
    *_KEY,
    Field("issuer_name", "to find it by", "string"),
    Field("max_path_length", "how many authorities may stand below", "integer"),
    Field("permitted_dns_domains", "below which it may certify names", "list"),
    Field("signature_bits", "of the hash", "integer"),
)
_CSR = Field("csr", "a request for a certificate, in PEM", "string")
_BUNDLE = (Field("pem_bundle", "certificates and private keys, in PEM", "string"),)
_REVOKED = (
    Field("serial_number", "with colons or hyphens", "string"),
    Field("certificate", "itself, in PEM", "string"),
)


def _write(pattern: str, handler: Handler, about: str, *names: Field, sudo: bool = False) -> Route:
    return Route(pattern, {_WRITE: handler}, fields=names, help=about, sudo=_SUDO if sudo else frozenset())


def _public(pattern: str, handler: Handler, about: str) -> Route:
    return Route(pattern, {_READ: handler}, open=True, help=about)


def _file(pattern: str, handler: Handler, about: str) -> Route:
    return Route(pattern, {_READ: handler}, open=True, bare=True, help=about)


def _signing() -> Iterable[Route]:
    """Routes that give certificates: by the issuer of the role, or by one that the path names."""
    for start in ("", "issuer/{issuer}/"):
        yield _write(
            f"{start}issue/{{name}}", issuing.issue, "A new key with its certificate.", *_NAMES, *_LIFE, *_SHAPE
        )
        yield _write(f"{start}sign/{{name}}", issuing.sign, "A certificate for a request.", _CSR, *_NAMES, *_LIFE)
        for end in ("", "/{name}"):
            pattern = f"{start}sign-verbatim{end}"
            yield _write(pattern, issuing.sign_verbatim, "The same, with the names of the request.", _CSR, *_LIFE)
        root = start or "root/"
        yield _write(
            f"{root}sign-intermediate", authorities.sign_intermediate, "An authority below ours.", _CSR, *_AUTHORITY
        )
        yield _write(
            f"{root}sign-self-issued",
            authorities.sign_self_issued,
            "A root of others, signed by ours.",
            Field("certificate", "in PEM", "string"),
            sudo=True,
        )


def _generating() -> Iterable[Route]:
    """Routes that make authorities, by their old names and those since there may be several."""
    for start, rotated in (("root/generate", "root/rotate"), ("issuers/generate/root", "")):
        for pattern in filter(None, (start, rotated)):
            yield _write(f"{pattern}/{{way}}", authorities.generate_root, "A new root.", *_AUTHORITY)
    for start in ("intermediate/generate", "issuers/generate/intermediate"):
        yield _write(f"{start}/{{way}}", authorities.generate_intermediate, "A request to be signed.", *_AUTHORITY)
    yield _write("keys/generate/{way}", authorities.generate_key, "A key alone.", *_KEY)
    yield _write("keys/import", authorities.bring_key, "A key that was made elsewhere.", *_BUNDLE, _KEY[2])
    for pattern in ("config/ca", "issuers/import/bundle"):
        yield _write(pattern, authorities.bring, "Authorities that were made elsewhere.", *_BUNDLE)
    yield _write("issuers/import/cert", authorities.bring_certificates, "The same without keys.", *_BUNDLE)
    signed = Field("certificate", "with those above it, in PEM", "string")
    yield _write("intermediate/set-signed", authorities.set_signed, "What was signed elsewhere.", signed)


def _files() -> Iterable[Route]:
    """Routes that anybody may read."""
    for start, chain in (("ca", "ca_chain"), ("issuer/{issuer}", "")):
        if chain:
            yield _file(start, reading.ca_der, "The certificate of the default issuer, in DER.")
            yield _file(chain, reading.ca_chain, "It and those above it, in PEM.")
        else:
            yield _file(f"{start}/der", reading.ca_der, "The certificate of an issuer, in DER.")
            yield _public(f"{start}/json", reading.issuer_json, "It and those above it.")
        yield _file(f"{start}/pem", reading.ca_pem, "The same in PEM.")
    yield _file("crl", reading.crl_der, "What the default issuer has revoked, in DER.")
    yield _file("crl/pem", reading.crl_pem, "The same in PEM.")
    yield _public("issuer/{issuer}/crl", reading.crl_json, "What an issuer has revoked.")
    yield _file("issuer/{issuer}/crl/der", reading.crl_der, "The same in DER.")
    yield _file("issuer/{issuer}/crl/pem", reading.crl_pem, "The same in PEM.")
    yield _public("cert/{serial}", reading.certificate, "A copy of a certificate; ca, ca_chain and crl are names too.")
    yield _file("cert/{serial}/raw", reading.certificate_der, "The same in DER.")
    yield _file("cert/{serial}/raw/pem", reading.certificate_pem, "The same in PEM.")


ENGINE = Engine(
    "pki",
    (
        Route("roles", {_LIST: roles.list_names}, help="Names of roles."),
        Route(
            "roles/{name}",
            {_WRITE: roles.write, Operation.PATCH: roles.patch, _READ: roles.show, Operation.DELETE: roles.delete},
            fields=fields(roles.SETTINGS),
            help="Which certificates may be asked for.",
        ),
        *_generating(),
        *_signing(),
        *_files(),
        Route("root", {Operation.DELETE: authorities.delete_root}, sudo=_SUDO, help="Removes all issuers and keys."),
        _write(
            "root/replace",
            configuring.replace_root,
            "Another default issuer.",
            Field("default", "id or name", "string"),
        ),
        Route("certs", {_LIST: reading.list_certificates}, help="Serials of certificates."),
        Route("certs/revoked", {_LIST: revoking.list_revoked}, help="Serials of those that were revoked."),
        _write("revoke", revoking.revoke, "Revoke a certificate.", *_REVOKED),
        _write(
            "revoke-with-key",
            revoking.revoke_with_key,
            "The same for who has its key.",
            *_REVOKED,
            Field("private_key", "of the certificate, in PEM", "string"),
        ),
        _write("issuer/{issuer}/revoke", revoking.revoke_issuer, "Revoke an issuer."),
        Route(
            "ocsp",
            {_WRITE: answering.ask},
            open=True,
            bare=True,
            fields=(Field("request", "OCSP request in base64; or itself under its own content type", "string"),),
            help="Whether a certificate is good.",
        ),
        _file("ocsp/{request...}", answering.ask, "The same by a request in base64."),
        Route("crl/rotate", {_READ: revoking.rotate, _WRITE: revoking.rotate}, help="Make new lists."),
        _write(
            "tidy",
            revoking.tidy,
            "Remove what has ended.",
            Field("tidy_cert_store", "copies of certificates", "boolean"),
            Field("tidy_revoked_certs", "revocations", "boolean"),
            Field("safety_buffer", "how long after the end; 72h unless it is said", "duration"),
        ),
        Route("tidy-status", {_READ: revoking.tidy_status}, help="What the last tidying did."),
        Route(
            "config/urls",
            {_READ: configuring.read_urls, _WRITE: configuring.write_urls},
            fields=(
                Field("issuing_certificates", "where the issuer's certificate is", "list"),
                Field("crl_distribution_points", "where the list of revoked ones is", "list"),
                Field("ocsp_servers", "who answers for single ones", "list"),
            ),
            help="Where certificates point to.",
        ),
        Route(
            "config/crl",
            {_READ: configuring.read_crl, _WRITE: configuring.write_crl},
            fields=(
                Field("expiry", "how long a list is good", "duration"),
                Field("disable", "lists are empty", "boolean"),
            ),
            help="Lists of revoked certificates.",
        ),
        Route(
            "config/issuers",
            {_READ: configuring.read_issuers, _WRITE: configuring.write_issuers},
            fields=(
                Field("default", "id or name", "string"),
                Field("default_follows_latest_issuer", "a new one is the default", "boolean"),
            ),
            help="The default issuer.",
        ),
        Route(
            "config/keys",
            {_READ: configuring.read_keys, _WRITE: configuring.write_keys},
            fields=(Field("default", "id or name", "string"),),
            help="The default key.",
        ),
        Route("issuers", {_LIST: configuring.list_issuers}, open=True, help="All issuers."),
        Route(
            "issuer/{issuer}",
            {
                _READ: configuring.read_issuer,
                _WRITE: configuring.write_issuer,
                Operation.PATCH: configuring.write_issuer,
                Operation.DELETE: configuring.delete_issuer,
            },
            fields=(
                Field("issuer_name", "to find it by", "string"),
                Field("leaf_not_after_behavior", "what would outlive it: err, truncate or permit", "string"),
                Field("usage", "what it is used for", "list"),
                Field("manual_chain", "ids or names, itself first", "list"),
                Field("revocation_signature_algorithm", "how it signs lists", "string"),
            ),
            help="An issuer.",
        ),
        Route("keys", {_LIST: configuring.list_keys}, help="All keys."),
        Route(
            "key/{key}",
            {_READ: configuring.read_key, _WRITE: configuring.write_key, Operation.DELETE: configuring.delete_key},
            fields=(_KEY[2],),
            help="A key of issuers; never itself.",
        ),
    ),
    revoke=revoking.end_lease,
)
