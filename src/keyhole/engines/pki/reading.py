"""What is for everybody: certificates of issuers, chains, lists of revoked ones, and copies; as files and as JSON."""

from __future__ import annotations

import base64

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Reply
from keyhole.core.times import format_time
from keyhole.crypto import pki
from keyhole.engines import Call, Context
from keyhole.engines.pki import revoking, store

DER_CERTIFICATE = "application/pkix-cert"
PEM_CERTIFICATE = "application/pem-certificate-chain"
DER_CRL = "application/pkix-crl"
PEM_CRL = "application/x-pem-file"


async def _issuer(context: Context, call: Call) -> store.Issuer | None:
    """The issuer of a path, or the default one; ``None`` where there is none."""
    try:
        return await store.find_issuer(context, call.params.get("issuer", store.DEFAULT))
    except InvalidRequest:
        return None


def _der(pem: str) -> bytes:
    return pki.read_certificate(pem).der


def _crl_pem(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN X509 CRL-----\n{lines}\n-----END X509 CRL-----\n"


async def ca_der(context: Context, call: Call) -> Reply:
    """The certificate of an issuer, in DER."""
    issuer = await _issuer(context, call)
    return Reply(raw=_der(issuer.certificate), content_type=DER_CERTIFICATE) if issuer else Reply()


async def ca_pem(context: Context, call: Call) -> Reply:
    """The certificate of an issuer, in PEM."""
    issuer = await _issuer(context, call)
    return Reply(raw=issuer.certificate.strip().encode(), content_type=PEM_CERTIFICATE) if issuer else Reply()


async def ca_chain(context: Context, call: Call) -> Reply:
    """The certificate of an issuer and those above it, in PEM."""
    issuer = await _issuer(context, call)
    if issuer is None:
        return Reply()
    chain = store.chain_of(issuer, await store.load_issuers(context))
    text = "\n".join(pem.strip() for pem in chain)
    return Reply(raw=text.encode(), content_type=PEM_CERTIFICATE)


async def issuer_json(context: Context, call: Call) -> Reply:
    """The certificate of an issuer and those above it."""
    issuer = await _issuer(context, call)
    if issuer is None:
        raise NotFound("there is no such issuer")
    chain = store.chain_of(issuer, await store.load_issuers(context))
    return Reply(
        {
            "certificate": issuer.certificate,
            "ca_chain": chain,
            "issuer_id": issuer.id,
            "issuer_name": issuer.name,
        }
    )


async def crl_der(context: Context, call: Call) -> Reply:
    """The list of an issuer, in DER."""
    der = await _crl(context, call)
    return Reply(raw=der, content_type=DER_CRL) if der else Reply()


async def crl_pem(context: Context, call: Call) -> Reply:
    """The list of an issuer, in PEM."""
    der = await _crl(context, call)
    return Reply(raw=_crl_pem(der).encode(), content_type=PEM_CRL) if der else Reply()


async def crl_json(context: Context, call: Call) -> Reply:
    """The list of an issuer, in PEM within JSON."""
    der = await _crl(context, call)
    if not der:
        raise NotFound("there is no such list")
    return Reply({"crl": _crl_pem(der)})


async def _crl(context: Context, call: Call) -> bytes:
    issuer = await _issuer(context, call)
    return await revoking.current_crl(context, issuer) if issuer else b""


async def certificate(context: Context, call: Call) -> Reply:
    """A copy by its serial, or what ``ca``, ``ca_chain`` and ``crl`` name."""
    name = call.params["serial"]
    pem, issuer, when = await _named(context, call, name)
    found = {
        "certificate": pem,
        "revocation_time": when,
        "revocation_time_rfc3339": format_time(when) if when else "",
        "issuer_id": issuer,
    }
    if name == "ca_chain":
        found["ca_chain"] = pem
    return Reply(found)


async def _named(context: Context, call: Call, name: str) -> tuple[str, str, int]:
    if name in {"ca", "ca_chain", "crl"}:
        issuer = await _issuer(context, call)
        if issuer is None:
            raise NotFound("there is no default issuer")
        if name == "crl":
            der = await revoking.current_crl(context, issuer)
            return _crl_pem(der) if der else "", issuer.id, 0
        chain = store.chain_of(issuer, await store.load_issuers(context))
        return "\n".join(pem.strip() for pem in chain) if name == "ca_chain" else issuer.certificate, issuer.id, 0
    stored = await store.load_certificate(context, name)
    if stored is None:
        raise NotFound("there is no copy of this certificate")
    return stored.pem, stored.issuer, await revoking.revoked_at(context, name)


async def certificate_der(context: Context, call: Call) -> Reply:
    """A copy by its serial, in DER."""
    stored = await store.load_certificate(context, call.params["serial"])
    return Reply(raw=_der(stored.pem), content_type=DER_CERTIFICATE) if stored else Reply()


async def certificate_pem(context: Context, call: Call) -> Reply:
    """A copy by its serial, in PEM."""
    stored = await store.load_certificate(context, call.params["serial"])
    return Reply(raw=stored.pem.encode(), content_type=PEM_CERTIFICATE) if stored else Reply()


async def list_certificates(context: Context, _call: Call) -> Reply:
    """Serials of the certificates of which there is a copy."""
    names = list(await context.storage.list("c"))
    if not names:
        raise NotFound("there are no certificates here")
    return Reply({"keys": [name.replace("-", ":") for name in names]})
