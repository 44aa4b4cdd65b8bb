"""The seal of an age identity: the key of each blob is an age file for the recipient of that identity.

What follows the name is the path of an identity file, as ``age -i`` takes it, with one ``AGE-SECRET-KEY-1…``, or of a
private ssh-ed25519 key. ``?passphrase=ask`` says that the file, or the SSH key in it, is under a passphrase, which a
person enters. It has to be said, since a server must know without the file whether it waits for somebody.

Who knows a recipient can make an age file for it, and so could give a store a root key of their own. Therefore what is
encrypted is signed with the key that derives from the identity (``crypto.age``). A key that gives none is refused: of a
plugin, whose program could also wait without limit, and ssh-rsa.
"""

from __future__ import annotations

from pathlib import Path

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.aead import KEY_SIZE, does_not_open
from keyhole.crypto.age import Identity
from keyhole.crypto.age_scrypt import is_passphrase_file, open_with
from keyhole.crypto.signing import verify
from keyhole.seals.kept import KeptSeal, settings
from keyhole.seals.private_file import read_private

NAME = "age"
_OPTIONS = ("passphrase",)
_EXAMPLE = "/etc/keyhole/identity.txt"
_ASK = "ask"
_MAX_SIZE = 64 * 1024  # bytes
_SIGNED = b"keyhole seal age v1\0"
_WANTED = "name the file that age-keygen -o or ssh-keygen wrote"


class AgeSeal(KeptSeal):
    """A seal that opens with an age identity.

    Args:
        path: the identity file; read anew at each use.
        vault_id: blobs open for this vault only.
        asks: the identity is under a passphrase.
        passphrase: as a person entered it; ``None`` until then.
    """

    name = NAME

    def __init__(self, path: Path, vault_id: str, *, asks: bool = False, passphrase: Secret | None = None) -> None:
        super().__init__(vault_id)
        self.unattended = not asks
        self._path = path
        self._asks = asks
        self._passphrase = passphrase

    def lock(self, key: bytes) -> bytes:
        """The random key of a blob with a signature, as a binary age file."""
        identity = self._identity()
        return age.encrypt(key + identity.signing.sign(self._signed(key)), [identity.recipient])

    def unlock(self, wrapped: bytes) -> bytes:
        """What the holder of the identity encrypted."""
        identity = self._identity()
        try:
            opened = age.decrypt(wrapped, [identity])
            key, signature = opened[:KEY_SIZE], opened[KEY_SIZE:]
            verify(identity.signing.public, self._signed(key), signature)
        except (NotFound, IntegrityError):
            raise does_not_open() from None
        return key

    def _signed(self, key: bytes) -> bytes:
        return _SIGNED + self.vault_id.encode() + b"\0" + key

    def _identity(self) -> Identity:
        data = read_private(self._path, "identity file", _WANTED, _MAX_SIZE)
        if len(data) > _MAX_SIZE:
            raise self._no_identity()
        entering = _Entering(self._passphrase if self._asks else None)
        try:
            found = self._read(data, entering)
        except (UnicodeDecodeError, IntegrityError):
            raise self._no_identity() from None
        except Sealed:
            if self._asks:
                raise
            raise Sealed(
                f"the identity file {self._path} is under a passphrase",
                f"say that it is asked for: --seal '{NAME}:{self._path}?passphrase={_ASK}'",
            ) from None
        if self._asks and not entering.used:
            # Else anything that is entered would count as proof of who enters it.
            raise InvalidRequest(
                f"the identity file {self._path} is under no passphrase", f"write --seal '{NAME}:{self._path}'"
            )
        return found

    def _read(self, data: bytes, entering: _Entering) -> Identity:
        """Raises ``Sealed``, ``InvalidRequest``, ``IntegrityError`` and ``UnicodeDecodeError``."""
        if is_passphrase_file(data):
            data = open_with(entering.required(), data)
        text = data.decode()
        if text.lstrip().startswith("-----BEGIN"):
            found = age.find_identity(text, entering)
            if not found.signs:
                raise self._unfit("an ssh-rsa key")
            return found
        lines = [line for each in text.splitlines() if (line := each.strip()) and not line.startswith("#")]
        if any(line.startswith(age.PLUGIN) for line in lines):
            raise self._unfit("of a plugin")
        if len(lines) != 1 or not lines[0].startswith(age.PRIVATE):
            raise self._no_identity()
        return age.parse_identity(lines[0])

    def _unfit(self, what: str) -> InvalidRequest:
        return InvalidRequest(
            f"the identity file {self._path} is {what}, which cannot prove who sealed",
            "use a key of age-keygen or ssh-ed25519; for a hardware token: --seal pkcs11:…",
        )

    def _no_identity(self) -> InvalidRequest:
        return InvalidRequest(
            f"the identity file {self._path} does not hold one identity of age",
            f"it has one line with {age.PRIVATE}…, or one ssh-ed25519 key; try: age-keygen -o FILE",
        )


class _Entering:
    """Gives the passphrase that was entered before, and says whether it was needed; asks nobody else."""

    def __init__(self, passphrase: Secret | None) -> None:
        self._passphrase = passphrase
        self.used = False

    def required(self) -> Secret:
        """The passphrase. Raises ``Sealed`` where there is none."""
        entered = self.passphrase("")
        if entered is None:
            raise Sealed("the age identity is under a passphrase", "enter it on a terminal, or name --passphrase-file")
        return entered

    def passphrase(self, _question: str) -> Secret | None:
        """What was entered; ``None`` for nothing."""
        self.used = True
        return self._passphrase

    def answer(self, _question: str) -> str | None:
        """``None``: nobody is asked."""
        return None

    def confirm(self, _question: str) -> bool | None:
        """``None``: nobody is asked."""
        return None

    def show(self, _message: str) -> None:
        """Say it to nobody."""


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> AgeSeal:
    """See ``keyhole.seals.open_seal``."""
    del create, interactive
    target, options = settings(NAME, rest, _OPTIONS, _EXAMPLE)
    if options.get("passphrase", _ASK) != _ASK:
        raise InvalidRequest(f"the seal {NAME} takes no passphrase in its name", f"write ?passphrase={_ASK}")
    return AgeSeal(Path(target), vault_id, asks=bool(options), passphrase=passphrase)
