"""A hardware token: an AES-256 key that never leaves it, through PKCS #11 (OASIS, 3.0) and AES-GCM.

A place in a token is a PKCS #11 URI (RFC 7512) without its scheme: which token, which key, which module, and where the
PIN is read. A PIN itself has no place in it. Without ``pin-source`` a person enters the PIN.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import NONCE_SIZE, TAG_SIZE, does_not_open
from keyhole.keepers.bounded import bounded

NAME = "pkcs11"
TIMEOUT = 10.0
"""Seconds that a token gets to answer."""
_EXAMPLE = "token=NAME;object=keyhole?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/keyhole/pin"
_KNOWN = frozenset({"token", "serial", "object", "module-path", "pin-source"})
_CHECK = "see that the token is there, and its name: pkcs11-tool --list-slots, or softhsm2-util --show-slots"
_NOT_OURS = frozenset(
    {"EncryptedDataInvalid", "EncryptedDataLenRange", "DataInvalid", "DataLenRange", "GeneralError", "SignatureInvalid"}
)
_PINS = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
_MAX_PIN = 255


@dataclass(frozen=True, slots=True)
class Place:
    """What a URI says.

    Attributes:
        module: path of the module of the token's maker.
        token, serial: of the token; one may be empty.
        label: of the key.
        pin_file: holds the PIN; empty where a person enters it.
    """

    module: str
    token: str
    serial: str
    label: str
    pin_file: str


class Token:
    """A key in a token, which wraps a few bytes.

    Args:
        place: which one.
        purpose: what is wrapped for another purpose does not come out again.
        pin: as a person entered it; ``None`` until then.
        create: make the key in the token if it is not there.
    """

    def __init__(self, place: Place, purpose: str, pin: Secret | None = None, *, create: bool = False) -> None:
        self.unattended = bool(place.pin_file)
        self._place = place
        self._purpose = purpose
        self._pin = pin
        self._create = create

    def lock(self, key: bytes) -> bytes:
        """A key, encrypted in the token. Raises ``Sealed`` when it does not answer or the key may not be used."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._run("encrypt", key, nonce, create=self._create)

    def unlock(self, wrapped: bytes) -> bytes:
        """What was encrypted there. Raises ``Sealed`` likewise, and ``IntegrityError`` for what was not."""
        return self._run("decrypt", wrapped[NONCE_SIZE:], wrapped[:NONCE_SIZE], create=False)

    def _run(self, verb: str, data: bytes, nonce: bytes, *, create: bool) -> bytes:
        pin = self._read_pin()

        def work() -> bytes:
            library = importlib.import_module("pkcs11")
            parameters = library.GCMParams(nonce, self._purpose.encode(), TAG_SIZE * 8)
            with self._session(library, pin, create=create) as session:
                key = self._key(library, session, create=create)
                return bytes(getattr(key, verb)(data, mechanism=library.Mechanism.AES_GCM, mechanism_param=parameters))

        def failed(error: Exception) -> KeyholeError:
            return self._refused(type(error).__name__, verb)

        return bounded(work, TIMEOUT, failed, "see that the token is there and its service runs", what="the token")

    def _session(self, library: Any, pin: str, *, create: bool) -> Any:
        try:
            module = library.lib(self._place.module)
        except Exception:  # noqa: BLE001  # of the linker, or of the module itself
            raise Sealed(
                f"the PKCS #11 module {self._place.module} cannot be loaded", "install it, or correct module-path="
            ) from None
        wanted: dict[str, Any] = {"token_label": self._place.token or None}
        if self._place.serial:
            wanted["token_serial"] = self._place.serial.encode()
        return module.get_token(**wanted).open(rw=create, user_pin=pin)

    def _key(self, library: Any, session: Any, *, create: bool) -> Any:
        kind, attribute = library.ObjectClass.SECRET_KEY, library.Attribute
        try:
            key = session.get_key(object_class=kind, label=self._place.label)
        except library.exceptions.NoSuchKey:
            if not create:
                raise
            template = {attribute.SENSITIVE: True, attribute.EXTRACTABLE: False}
            return session.generate_key(
                library.KeyType.AES, 256, label=self._place.label, store=True, template=template
            )
        if key[attribute.EXTRACTABLE] or not key[attribute.SENSITIVE]:
            raise InvalidRequest(
                f"the key {self._place.label!r} can be taken out of its token",
                "make one that cannot: name another object=, and it is made there",
            )
        return key

    def _read_pin(self) -> str:
        if not self._place.pin_file:
            if self._pin is None:
                raise Sealed("no PIN was given", "enter it on a terminal, or name it with --passphrase-file")
            return self._pin.reveal().decode(errors="replace")
        try:
            with Path(self._place.pin_file).open("rb") as file:
                pin = file.read(_MAX_PIN + 2).rstrip(b"\r\n")
        except OSError as error:
            raise Sealed(
                f"the PIN file {self._place.pin_file} cannot be read: {error.strerror}", "mount it, or enter the PIN"
            ) from None
        return pin.decode(errors="replace")

    def _refused(self, error: str, verb: str) -> KeyholeError:
        """A wrong PIN is not tried again by itself: a token locks after some."""
        if error in _PINS:
            return Sealed(
                "the token refuses the PIN", "give the right one; after some wrong ones the token locks itself"
            )
        if error == "PinLocked":
            return Sealed("the PIN of the token is locked", "its security officer can set a new one")
        if error in {"NoSuchToken", "TokenNotPresent", "DeviceRemoved"}:
            return Sealed("the token is not there", _CHECK)
        if error in {"MultipleTokensReturned", "MultipleObjectsReturned"}:
            return Sealed(
                "several tokens or keys have this name", "name the token by its serial=, the key by its object="
            )
        if error == "NoSuchKey":
            return Sealed(
                f"the token has no key {self._place.label!r}", "check object=, and that it is the right token"
            )
        if verb == "decrypt" and error in _NOT_OURS:
            return does_not_open()
        return Sealed(f"the token failed ({error})", "look at the log of its module")


def read_place(rest: str) -> Place:
    """What a PKCS #11 URI says. Raises ``InvalidRequest``."""
    path, _, query = rest.partition("?")
    found: dict[str, str] = {}
    for part in (*filter(None, path.split(";")), *filter(None, query.split("&"))):
        name, _, value = part.partition("=")
        if name == "pin-value":
            raise InvalidRequest(
                "a PIN does not belong into the name of a token's key, where everybody can read it",
                "write the PIN into a file, and name that: pin-source=file:PATH",
            )
        if name not in _KNOWN or name in found or not value:
            raise InvalidRequest(
                "pkcs11: has an attribute that is not known, is empty or stands twice",
                f"it may have: {', '.join(sorted(_KNOWN))}",
            )
        found[name] = unquote(value)
    module = found.get("module-path", "")
    if not module.startswith("/") or not (found.get("token") or found.get("serial")) or not found.get("object"):
        raise InvalidRequest("pkcs11: needs a token, an object and a module-path", f"{NAME}:{_EXAMPLE}")
    pin_file = found.get("pin-source", "").removeprefix("file://").removeprefix("file:")
    return Place(module, found.get("token", ""), found.get("serial", ""), found["object"], pin_file)


def open_token(rest: str, purpose: str, pin: Secret | None = None, *, create: bool = False) -> Token:
    """The key that a URI names; nothing is asked before it is used.

    Raises:
        InvalidRequest: the URI is wrong, or the library for tokens is not installed.
    """
    place = read_place(rest)
    if importlib.util.find_spec("pkcs11") is None:
        raise InvalidRequest("a key in a token needs python-pkcs11", "pip install 'keyhole[hsm]'")
    return Token(place, purpose, pin, create=create)
