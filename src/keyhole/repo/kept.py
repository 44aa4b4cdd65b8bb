"""In what form a key file holds a key: in clear, under a passphrase, sealed by a token, or only saying where it is.

``keychain:NAME`` in a file means that the key is an entry of the system's keychain: service ``keyhole-repo-key``, user
name NAME. A key that a token seals is a JSON object with the place of the token's key, the public key, and the sealed
private one: under 32 random bytes, which the token has wrapped (as the seal pkcs11 does it).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.aead import KEY_SIZE, AeadKey
from keyhole.crypto.age import Identity
from keyhole.crypto.age_plugin import NOBODY, Prompts
from keyhole.crypto.age_scrypt import is_passphrase_file, open_with, seal_with
from keyhole.crypto.kdf import hkdf
from keyhole.keepers.keychain import Entries, Keychain
from keyhole.keepers.token import Token, open_token, read_place
from keyhole.repo.names import parse_part

KEYCHAIN, PKCS11 = "keychain:", "pkcs11:"
SERVICE = "keyhole-repo-key"
_MARK = "keyhole-repo-key in a token, version 1"
_READING, _KEEPING = "name another key with --key", "use another place: --in passphrase"


class Form(StrEnum):
    """What a key file holds."""

    CLEAR = "file"
    PASSPHRASE = "passphrase"  # noqa: S105 - a word
    KEYCHAIN = "keychain"
    TOKEN = "pkcs11"  # noqa: S105 - a word
    SSH = "ssh"
    PLUGIN = "plugin"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a person while a key is opened or kept.

    Attributes:
        prompts: asks for passphrases and PINs, and speaks for plugins.
        keychain: a locked one may ask its user.
    """

    prompts: Prompts = NOBODY
    keychain: bool = False


UNATTENDED = Asked()


def form_of(data: bytes) -> Form:
    """What the bytes of a key file hold, by their look."""
    if is_passphrase_file(data):
        return Form.PASSPHRASE
    text = data.decode(errors="replace")
    if text.startswith(KEYCHAIN):
        return Form.KEYCHAIN
    if text.lstrip().startswith("{"):
        return Form.TOKEN
    if text.lstrip().startswith("-----BEGIN"):
        return Form.SSH
    return Form.PLUGIN if any(line.startswith(age.PLUGIN) for line in text.splitlines()) else Form.CLEAR


def open_kept(data: bytes, asked: Asked = UNATTENDED, token: str = "") -> Identity:
    """The key that the bytes of a file hold or lead to.

    Args:
        data: of the file.
        asked: who may be asked.
        token: ``pkcs11:URI`` instead of the one that the file names, such as where the module lies elsewhere.

    Raises:
        InvalidRequest: there is no key in it.
        Sealed: nobody gives the passphrase or PIN, or the keychain or token does not answer.
        NotFound: the keychain has no such entry.
        IntegrityError: it was changed.
    """
    match form_of(data):
        case Form.PASSPHRASE:
            entered = asked.prompts.passphrase("Passphrase of the key")
            if entered is None:
                raise Sealed("the key is under a passphrase", "enter it on a terminal, or name --passphrase-file")
            return _text(open_with(entered, data), asked)
        case Form.KEYCHAIN:
            return from_keychain(data.decode(errors="replace").strip(), asked)
        case Form.TOKEN:
            return _from_token(data, asked, token)
    return _text(data, asked)


def from_keychain(place: str, asked: Asked = UNATTENDED) -> Identity:
    """The key of ``keychain:NAME``. Raises as ``open_kept``."""
    name = _entry(place)
    stored = Keychain(_READING, asked.keychain).run(lambda entries: entries.get_password(SERVICE, name))
    if stored is None:
        raise NotFound(
            f"the keychain has no key {name!r}", "open it as the user, and on the machine, that put the key there"
        )
    return age.find_identity(stored, asked.prompts)


def opens_unattended(data: bytes) -> bool:
    """Whether a key needs nobody to enter anything, as far as its form says."""
    form = form_of(data)
    if form is Form.TOKEN:
        return bool(read_place(_token_file(data)["place"].removeprefix(PKCS11)).pin_file)
    if form is Form.SSH:
        try:
            open_kept(data)
        except Sealed:
            return False
    return form in {Form.CLEAR, Form.KEYCHAIN, Form.SSH}


def public_of(data: bytes) -> str:
    """The public key, where it can be told without opening anything; else empty."""
    form = form_of(data)
    if form is Form.TOKEN:
        return str(_token_file(data)["recipient"])
    return age.find_identity(data.decode()).recipient.text if form in {Form.CLEAR, Form.PLUGIN} else ""


def keep(identity: Identity, where: str, asked: Asked, new: Callable[[str], Secret]) -> bytes:
    """Put a key somewhere, and give the bytes for its file.

    Args:
        identity: the key.
        where: ``file``, ``passphrase``, ``keychain``, ``keychain:NAME`` or ``pkcs11:URI``.
        asked: who may be asked to unlock a keychain.
        new: asks for a new passphrase, or for the PIN of a token.

    Raises:
        InvalidRequest: there is no such place, or the passphrase is short.
        Sealed: the keychain or token does not answer.
        Conflict: the keychain's entry of that name is another key.
    """
    if where == Form.CLEAR:
        return identity.to_text().encode()
    if where == Form.PASSPHRASE:
        return seal_with(new("Passphrase"), identity.to_text().encode())
    if where == Form.KEYCHAIN or where.startswith(KEYCHAIN):
        return _into_keychain(identity, where if where.startswith(KEYCHAIN) else f"{KEYCHAIN}owner", asked)
    if where.startswith(PKCS11):
        return _into_token(identity, where, new)
    raise InvalidRequest("there is no such place for a key", "use file, passphrase, keychain, or pkcs11:URI")


def forget(data: bytes, asked: Asked) -> None:
    """Take the entry away that a file leads to, after its key has got another place. Raises ``Sealed``."""
    if form_of(data) is Form.KEYCHAIN:
        name = _entry(data.decode(errors="replace").strip())
        Keychain(_KEEPING, asked.keychain).run(lambda entries: entries.delete_password(SERVICE, name))


def _into_keychain(identity: Identity, place: str, asked: Asked) -> bytes:
    name, text = _entry(place), identity.to_text()

    def work(entries: Entries) -> str | None:
        there = entries.get_password(SERVICE, name)
        if there is None:
            entries.set_password(SERVICE, name, text)
            there = entries.get_password(SERVICE, name)
        return there

    if Keychain(_KEEPING, asked.keychain).run(work) != text:
        raise Conflict(
            f"the keychain has another key {name!r}",
            f"it is never written over: keep this one as {KEYCHAIN}NAME, or use that one with --key {place}",
        )
    return place.encode() + b"\n"


def _entry(place: str) -> str:
    return parse_part(place.removeprefix(KEYCHAIN), "key")


def _into_token(identity: Identity, place: str, new: Callable[[str], Secret]) -> bytes:
    rest, public = place.removeprefix(PKCS11), identity.recipient.text
    pin = None if read_place(rest).pin_file else new("PIN of the token")
    own = os.urandom(KEY_SIZE)
    wrapped = open_token(rest, _purpose(public), pin, create=True).lock(own)
    sealed = _wrapping(own).seal(identity.to_text().encode(), _purpose(public).encode())
    content = {
        "kind": _MARK,
        "place": place,
        "recipient": public,
        "wrapped": base64.b64encode(wrapped).decode(),
        "sealed": base64.b64encode(sealed).decode(),
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _from_token(data: bytes, asked: Asked, token: str) -> Identity:
    content = _token_file(data)
    rest, public = (token or content["place"]).removeprefix(PKCS11), content["recipient"]
    pin = None if read_place(rest).pin_file else asked.prompts.passphrase("PIN of the token")
    unlocker: Token = open_token(rest, _purpose(public), pin)
    try:
        wrapped, sealed = (base64.b64decode(content[name], validate=True) for name in ("wrapped", "sealed"))
    except binascii.Error:
        raise _changed() from None
    text = _wrapping(unlocker.unlock(wrapped)).open(sealed, _purpose(public).encode())
    return _text(text, asked)


def _token_file(data: bytes) -> dict[str, str]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    wanted = {"kind", "place", "recipient", "wrapped", "sealed"}
    if not isinstance(content, dict) or content.keys() != wanted or content["kind"] != _MARK:
        raise InvalidRequest("this is no key file", "name the file that keyhole repo key new made")
    if not all(isinstance(value, str) for value in content.values()):
        raise _changed()
    return content


def _purpose(public: str) -> str:
    return f"keyhole-repo-key {public}"


def _wrapping(own: bytes) -> AeadKey:
    if len(own) != KEY_SIZE:
        raise _changed()
    return AeadKey(hkdf(own, b"keyhole-repo-key in a token v1"))


def _text(data: bytes, asked: Asked) -> Identity:
    try:
        return age.find_identity(data.decode(), asked.prompts)
    except UnicodeDecodeError:
        raise InvalidRequest("this is no key file", "it is a text that begins with AGE-SECRET-KEY-1") from None


def _changed() -> IntegrityError:
    return IntegrityError("the file of a key that a token seals was changed", "take a copy of it, or recover the key")
