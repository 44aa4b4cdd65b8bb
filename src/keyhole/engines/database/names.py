"""User names and passwords that are made here."""

from __future__ import annotations

import re
import string

from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import Lease
from keyhole.crypto.passwords import CharacterRule, PasswordRules
from keyhole.engines.database.templates import Source, read_template

CHANCE = 8  # characters of a name that have to be left to chance, so that no two leases have the same one
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.@:+-]")
# In a statement these would end the text or the name in which they stand.
_ENDS_TEXT = re.compile(r"""['"`\\;]|[^\x20-\x7e]""")
_RULES = PasswordRules(
    20,
    (
        CharacterRule(string.ascii_lowercase, 1),
        CharacterRule(string.ascii_uppercase, 1),
        CharacterRule(string.digits, 1),
        CharacterRule("-", 1),
    ),
)


def name_of(lease: Lease, template: str, display: str, role: str) -> str:
    """The user name of a lease: the same one whenever it is asked for, and no other lease's.

    Raises:
        InvalidRequest: the template makes names that cannot stand in statements.
    """
    source = Source(lease.id, int(lease.issued), _NOT_PLAIN.sub("-", display), _NOT_PLAIN.sub("-", role))
    return safe(read_template(template).render(source), "the username_template makes names")


def user_of(lease: Lease) -> str:
    """The name of the user of a lease; empty for a lease of something else."""
    internal = lease.internal
    if "template" not in internal:
        return ""
    return name_of(lease, internal["template"], internal["display"], internal["role"])


def check_template(template: str) -> None:
    """Raises ``InvalidRequest`` when it cannot be read, or leaves too little of a name to chance."""
    read = read_template(template)
    names = [read.render(Source(str(number), 0, "x" * 64, "x" * 64)) for number in range(16)]
    safe(names[0], "the username_template makes names")
    varied = sum(len(set(letters)) > 1 for letters in zip(*names, strict=False))
    if varied < CHANCE:
        raise InvalidRequest(
            f"username_template leaves fewer than {CHANCE} characters of a long name to chance",
            "add (random 20), and truncate the whole later",
        )


def require_short(name: str, longest: int) -> str:
    """This name, when the database does not cut it: PostgreSQL would, silently, and take it for another user's.

    Raises:
        InvalidRequest: it has more bytes than ``longest``.
    """
    if len(name.encode()) > longest:
        raise InvalidRequest(f"a user name of this database has at most {longest} characters", "truncate it")
    return name


def safe(text: str, what: str) -> str:
    """This text, when it can stand between quotes in a statement. Raises ``InvalidRequest``."""
    if not text or _ENDS_TEXT.search(text):
        raise InvalidRequest(
            f"{what} that cannot stand in a statement", "use letters, digits and signs other than quotes, \\ and ;"
        )
    return text


def new_password(rules: PasswordRules | None = None) -> str:
    """A new password; without rules 20 letters, digits and dashes, at least one of each kind."""
    return safe((rules or _RULES).generate(), "the password policy makes passwords")
