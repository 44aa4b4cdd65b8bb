"""Who a certificate is for: its subject and its alternative names."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import NameOID

from keyhole.core.errors import InvalidRequest

SUBJECT_FIELDS: MappingProxyType[str, x509.ObjectIdentifier] = MappingProxyType(
    {
        "country": NameOID.COUNTRY_NAME,
        "organization": NameOID.ORGANIZATION_NAME,
        "ou": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "locality": NameOID.LOCALITY_NAME,
        "province": NameOID.STATE_OR_PROVINCE_NAME,
        "street_address": NameOID.STREET_ADDRESS,
        "postal_code": NameOID.POSTAL_CODE,
    }
)
"""Fields of a subject that may have several values, in the order in which they stand."""
_UTF8 = 12  # the tag of a UTF8String, X.690
_LONG = 128  # from this length on DER counts in bytes of its own
_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280, appendix A.1


@dataclass(frozen=True, slots=True)
class Subject:
    """Attributes of a subject.

    Attributes:
        common_name: may be empty.
        serial_number: of a person or device; not that of the certificate.
        fields: values by name of ``SUBJECT_FIELDS``.
    """

    common_name: str = ""
    serial_number: str = ""
    fields: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def encode(self) -> x509.Name:
        """As it stands in a certificate. Raises ``InvalidRequest``."""
        if len(self.common_name) > _LONGEST_COMMON_NAME:
            raise InvalidRequest(f"common_name is longer than {_LONGEST_COMMON_NAME} characters", "use alt_names")
        given = dict(self.fields)
        try:
            attributes = [
                x509.NameAttribute(oid, value) for name, oid in SUBJECT_FIELDS.items() for value in given.get(name, ())
            ]
            if self.common_name:
                attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, self.common_name))
            if self.serial_number:
                attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, self.serial_number))
        except ValueError:
            raise InvalidRequest("a field of the subject is too long or not allowed", "country has 2 letters") from None
        return x509.Name(attributes)


@dataclass(frozen=True, slots=True)
class AltNames:
    """Alternative names. ``others`` are pairs of an object id and a text."""

    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    def encode(self) -> list[x509.GeneralName]:
        """As they stand in a certificate. Raises ``InvalidRequest``."""
        try:
            return [
                *(x509.DNSName(name) for name in self.dns),
                *(x509.RFC822Name(name) for name in self.emails),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in self.ips),
                *(x509.UniformResourceIdentifier(uri) for uri in self.uris),
                *(x509.OtherName(x509.ObjectIdentifier(oid), _utf8(text)) for oid, text in self.others),
            ]
        except ValueError:
            raise InvalidRequest("an alternative name is not one of its type", "write names in ASCII") from None


def read_subject(name: x509.Name) -> Subject:
    """The subject of a certificate or a request; what it has besides the fields that are known is left out."""
    by_oid = {oid: field for field, oid in SUBJECT_FIELDS.items()}
    found: dict[str, list[str]] = {}
    for attribute in name:
        field = by_oid.get(attribute.oid)
        if field:
            found.setdefault(field, []).append(str(attribute.value))
    fields = tuple((field, tuple(values)) for field, values in found.items())
    return Subject(_first(name, NameOID.COMMON_NAME), _first(name, NameOID.SERIAL_NUMBER), fields)


def read_alt_names(names: Sequence[x509.GeneralName]) -> AltNames:
    """The alternative names. Raises ``InvalidRequest`` for one of a type that is not known."""
    dns, emails, ips, uris = [], [], [], []
    others = []
    for name in names:
        if isinstance(name, x509.DNSName):
            dns.append(name.value)
        elif isinstance(name, x509.RFC822Name):
            emails.append(name.value)
        elif isinstance(name, x509.IPAddress):
            ips.append(str(name.value))
        elif isinstance(name, x509.UniformResourceIdentifier):
            uris.append(name.value)
        elif isinstance(name, x509.OtherName):
            others.append((name.type_id.dotted_string, _text(name.value)))
        else:
            raise InvalidRequest("the request has an alternative name of a type that is not known")
    return AltNames(tuple(dns), tuple(emails), tuple(ips), tuple(uris), tuple(others))


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _utf8(text: str) -> bytes:
    data = text.encode()
    if len(data) >= _LONG:
        raise InvalidRequest(f"the text of another name has fewer than {_LONG} bytes")
    return bytes((_UTF8, len(data))) + data


def _text(der: bytes) -> str:
    if len(der) < 2 or der[0] != _UTF8 or der[1] >= _LONG or der[1] != len(der) - 2:
        raise InvalidRequest("the request has another name that is no short UTF-8 text")
    try:
        return der[2:].decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the request has another name that is no short UTF-8 text") from None
