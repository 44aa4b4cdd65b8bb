"""What is stored: issuers, keys, certificates, and the settings of the mount.

``i/ID`` an issuer, ``k/ID`` a private key, ``c/SERIAL`` a certificate, ``v/SERIAL`` that it was revoked, ``l/ID`` the
list of an issuer, ``s`` the settings. A change that adds an issuer names the revision of the settings, so that two
changes at once never both become the default.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_name
from keyhole.crypto import pki
from keyhole.engines import Context

DEFAULT = "default"
_SETTINGS = "s"
_HOUR = 3600
USAGES = ("read-only", "issuing-certificates", "crl-signing", "ocsp-signing")
URL_FIELDS = ("issuing_certificates", "crl_distribution_points", "ocsp_servers")


@dataclass(slots=True)
class Settings:
    """Settings of the mount.

    Attributes:
        issuer: id of the default issuer.
        follows: a new issuer with a key becomes the default.
        key: id of the default key.
        urls: where certificates point to, by name of ``URL_FIELDS``.
        crl: settings of lists of revoked certificates.
        tidy: what the last tidying did.
        revoked: counts revocations; a list that was made at another count is old.
        revision: of the entry.
    """

    issuer: str = ""
    follows: bool = False
    key: str = ""
    urls: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in URL_FIELDS})
    crl: dict[str, Any] = field(default_factory=lambda: {"expiry": 72 * _HOUR, "disable": False, "auto_rebuild": False})
    tidy: dict[str, Any] = field(default_factory=dict)
    revoked: int = 0
    revision: int = 0

    def put(self) -> tuple[str, bytes, int]:
        """The write that stores them where they were read."""
        data = asdict(self)
        del data["revision"]
        return _SETTINGS, json.dumps(data).encode(), self.revision


@dataclass(slots=True)
class Issuer:
    """A certificate that signs others, if its key is here too.

    Attributes:
        key: id of its key; empty when that is elsewhere.
        chain: ids of this and the issuers above it, as far as they are here.
        manual_chain: the same, as somebody set it.
        not_after: what happens to a certificate that would live longer: err, truncate or permit.
        usage: what it is used for.
        urls: its own, where it has some.
        signature: how it signs lists, when it was said.
        revoked: when it was revoked itself; 0 for never.
    """

    id: str
    name: str
    key: str
    certificate: str
    chain: list[str] = field(default_factory=list)
    manual_chain: list[str] = field(default_factory=list)
    not_after: str = "err"
    usage: list[str] = field(default_factory=lambda: list(USAGES))
    urls: dict[str, list[str]] = field(default_factory=dict)
    signature: str = ""
    revoked: int = 0
    revision: int = 0

    def put(self) -> tuple[str, bytes, int]:
        """The write that stores it where it was read."""
        data = asdict(self)
        del data["revision"], data["id"]
        return f"i/{self.id}", json.dumps(data).encode(), self.revision


@dataclass(slots=True)
class Key:
    """A private key, PKCS #8 in DER and base64."""

    id: str
    name: str
    type: str
    bits: int
    private: str = field(repr=False)
    revision: int = 0

    @property
    def der(self) -> bytes:
        """The private key."""
        return base64.b64decode(self.private)

    def put(self) -> tuple[str, bytes, int]:
        """The write that stores it where it was read."""
        data = asdict(self)
        del data["revision"], data["id"]
        return f"k/{self.id}", json.dumps(data).encode(), self.revision


def new_key(private: bytes, info: pki.KeyInfo, name: str = "") -> Key:
    """A key that is not stored yet."""
    return Key(str(uuid.uuid4()), name, info.type, info.bits, base64.b64encode(private).decode())


async def load_settings(context: Context) -> Settings:
    """The settings as they are now."""
    item = await context.storage.get_one(_SETTINGS)
    return Settings(revision=item.revision, **(json.loads(item.data) if item.data is not None else {}))


async def load_issuers(context: Context) -> dict[str, Issuer]:
    """All issuers by id."""
    return {name: Issuer(id=name, revision=revision, **data) for name, data, revision in await _all(context, "i")}


async def load_keys(context: Context) -> dict[str, Key]:
    """All keys by id."""
    return {name: Key(id=name, revision=revision, **data) for name, data, revision in await _all(context, "k")}


async def _all(context: Context, folder: str) -> list[tuple[str, dict[str, Any], int]]:
    names = list(await context.storage.list(folder))
    items = await context.storage.get(*(f"{folder}/{name}" for name in names))
    found = zip(names, items, strict=True)
    return [(name, json.loads(item.data), item.revision) for name, item in found if item.data is not None]


_Named = TypeVar("_Named", Issuer, Key)


async def find_issuer(context: Context, ref: str) -> Issuer:
    """An issuer by id, name, or as the default one. Raises ``InvalidRequest`` when there is none."""
    if ref == DEFAULT:
        ref = (await load_settings(context)).issuer
        if not ref:
            raise InvalidRequest(
                "no default issuer currently configured", "generate a root, or set a signed certificate"
            )
    return find(await load_issuers(context), ref, "issuer")


async def find_key(context: Context, ref: str) -> Key:
    """A key by id, name, or as the default one. Raises ``InvalidRequest`` when there is none."""
    if ref == DEFAULT:
        ref = (await load_settings(context)).key
        if not ref:
            raise InvalidRequest("no default key currently configured", "generate or import one")
    return find(await load_keys(context), ref, "key")


def find(known: Mapping[str, _Named], ref: str, what: str) -> _Named:
    """One of these by id or name. Raises ``InvalidRequest``."""
    for each in known.values():
        if ref in {each.id, each.name} and ref:
            return each
    raise InvalidRequest(f"unable to find PKI {what} for reference: {ref[:64]}", f"list {what}s/ shows those there are")


def check_name(name: str, known: Mapping[str, Issuer] | Mapping[str, Key], what: str, own: str = "") -> str:
    """A name for an issuer or a key that no other has. Raises ``InvalidRequest``."""
    if not name:
        return ""
    parse_name(name)
    if name == DEFAULT:
        raise InvalidRequest(f"reserved keyword 'default' can not be used as {what} name")
    if any(each.name == name and each.id != own for each in known.values()):
        raise InvalidRequest(f"{what} name already in use", "choose another")
    return name


def serial_text(serial: int) -> str:
    """A serial as people write it: ``1a:2b:…``."""
    return serial.to_bytes((serial.bit_length() + 7) // 8 or 1).hex(":")


def serial_path(text: str) -> str:
    """A serial, with colons or hyphens, as part of a path. Raises ``NotFound`` for what is none."""
    plain = text.strip().lower().replace(":", "-")
    if not plain or len(plain) > 64 or any(char not in "0123456789abcdef-" for char in plain):
        raise NotFound("this is no serial number")
    return plain


@dataclass(slots=True)
class Stored:
    """A certificate that was issued.

    Attributes:
        issuer: id of who signed it.
        before: when it ends, seconds since the epoch.
    """

    pem: str
    issuer: str
    before: int
    revision: int = 0


async def load_certificate(context: Context, serial: str) -> Stored | None:
    """A certificate by its serial."""
    item = await context.storage.get_one(f"c/{serial_path(serial)}")
    return None if item.data is None else Stored(revision=item.revision, **json.loads(item.data))


def put_certificate(info: pki.CertificateInfo, issuer: str) -> tuple[str, bytes, int]:
    """The write that stores a new certificate."""
    data = {"pem": info.pem, "issuer": issuer, "before": info.before}
    return f"c/{serial_path(serial_text(info.serial))}", json.dumps(data).encode(), 0


def rechain(issuers: Mapping[str, Issuer]) -> list[Issuer]:
    """Work out the chains of all issuers; those whose chain has changed."""
    infos = {each.id: pki.read_certificate(each.certificate) for each in issuers.values()}
    changed = []
    for each in issuers.values():
        chain = each.manual_chain or _chain(each.id, issuers, infos)
        if chain != each.chain:
            each.chain = chain
            changed.append(each)
    return changed


def _chain(start: str, issuers: Mapping[str, Issuer], infos: Mapping[str, pki.CertificateInfo]) -> list[str]:
    chain, current = [start], start
    while not infos[current].self_issued:
        above = [
            other
            for other, info in infos.items()
            if other not in chain
            and info.subject == infos[current].issuer
            and pki.is_signed_by(issuers[current].certificate, issuers[other].certificate)
        ]
        if not above:
            break
        current = above[0]
        chain.append(current)
    return chain


def chain_of(issuer: Issuer, issuers: Mapping[str, Issuer]) -> list[str]:
    """The certificates of an issuer and those above it, in PEM."""
    return [issuers[name].certificate for name in issuer.chain if name in issuers] or [issuer.certificate]


def urls_of(issuer: Issuer, settings: Settings) -> dict[str, Sequence[str]]:
    """Where certificates of this issuer point to: its own addresses, if it has any, else those of the mount."""
    own = any(issuer.urls.get(name) for name in URL_FIELDS)
    return {name: (issuer.urls if own else settings.urls).get(name, []) for name in URL_FIELDS}
