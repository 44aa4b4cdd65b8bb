"""What an importer says: credentials found, with the places where they stand, and what it left alone and why."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret

if TYPE_CHECKING:
    from keyhole.crypto.age import Identity

PLAIN, BASE64, URL = "plain", "base64", "url"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is read: a file may come out of somebody else's repository.

    Attributes:
        file: bytes of a file.
        output: bytes that a command may print.
        seconds: that a command may take.
        value: bytes of one value.
        entries: credentials and other entries of one file.
        depth: nesting of JSON.
        nodes: values of a JSON file, of all kinds together.
    """

    file: int = 16 * 1024 * 1024
    output: int = 64 * 1024
    seconds: float = 60.0
    value: int = 64 * 1024
    entries: int = 2_000
    depth: int = 64
    nodes: int = 1_000_000


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Opens:
    """What opens a source that another program has sealed.

    Attributes:
        identities: of age.
        password: of the file, or of the program.
    """

    identities: tuple[Identity, ...] = field(default=(), repr=False)
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the bytes come from.

    Attributes:
        label: a path or another word for a person.
        group: first part of the names of what nobody knows: the folder's name for a file of a project.
        opens: what opens it, where it is sealed.
    """

    label: str
    group: str = "imported"
    opens: Opens = Opens()


@dataclass(frozen=True, slots=True)
class Spot:
    """Bytes of the file that give a value away, and how another text is written there.

    Attributes:
        start: offset of the first byte.
        end: offset after the last one.
        field: of the secret, whose placeholder comes here.
        form: ``plain``, ``url`` (percent-encoded) or ``base64``.
        before: what stands before the value inside of base64, such as ``user:``.
    """

    start: int
    end: int
    field: str = DEFAULT_FIELD
    form: str = PLAIN
    before: str = ""

    def written(self, text: str) -> bytes:
        """A placeholder in the form of this place."""
        if self.form == BASE64:
            return base64.b64encode((self.before + text).encode())
        return (quote(text, safe="") if self.form == URL else text).encode()


@dataclass(frozen=True, slots=True)
class Binding:
    """Where the source itself sends a credential, and how: enough for a service.

    Attributes:
        host: ``host`` or ``host:port``.
        inject: the ``inject`` object of a service.
        scheme: of the address.
    """

    host: str
    inject: Mapping[str, Any]
    scheme: str = "https"


@dataclass(frozen=True, slots=True)
class Found:
    """A credential.

    Attributes:
        name: a name for the secret, where the catalog has no better one.
        fields: field to value.
        where: where in the source, such as ``line 3``.
        kind: type of the secret.
        variable: the environment variable that holds it, where one does.
        entry: name in the catalog, where the source is only for that.
        binding: where the source sends it, where it says so.
        spots: what gives it away in the file; empty for what is not in a file.
        doubt: why it is probably not a secret; it is taken only when somebody insists, or the catalog knows it.
        stays: why a placeholder would not work in its place; empty where it would.
        expires_in: how long it lives at most, where that is known.
        labels: what its source says of it for people: names and texts, and no secret.
        seen: why somebody else may have seen it; empty where nothing says so.
    """

    name: str
    fields: Mapping[str, Secret]
    where: str
    kind: str = "api-key"
    variable: str = ""
    entry: str = ""
    binding: Binding | None = None
    spots: tuple[Spot, ...] = ()
    doubt: str = ""
    stays: str = ""
    expires_in: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not taken: its name as the source has it, where it stands, and why.

    ``failed``: it is what was asked for, and cannot be had.
    """

    name: str
    where: str
    why: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A credential that another program keeps: ``docker-credential-NAME get`` gives that of ``server``."""

    helper: str
    server: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that an importer says about one source.

    Attributes:
        found: credentials.
        skipped: what is not taken.
        notes: what a person should know besides.
        asked: what lies in another program.
        seen: why somebody else may have seen all of it; empty where the source is sealed, or nothing says so.
    """

    found: tuple[Found, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = field(default=())
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A secret on its way out, in clear: for the member that writes it into another program's format.

    Attributes:
        name: of the secret.
        fields: field to text.
    """

    name: str
    fields: Mapping[str, str] = field(repr=False)
