"""A database that was reached and does not open a session."""

from __future__ import annotations

from keyhole.core.errors import UpstreamUnreachable

_MEANS = {
    "3D000": ("it has no database of that name", "name another one"),
    "28000": ("it did not take the login", "may this user connect to this database from here?"),
    "28P01": ("it did not take the login", "is what the service lends still right?"),
    "42501": ("the user may not connect to this database", "grant CONNECT to its role"),
    "53300": ("it has too many sessions", "close some, or try again later"),
    "57P03": ("it is starting or shutting down", "try again later"),
    "42000": ("it has no database of that name, or the user may not use it", "name another one"),
    "08004": ("it has too many sessions", "close some, or try again later"),
    "22023": ("it did not take a parameter of the client", "leave it out of the client's connection string"),
}


class LoginRefused(UpstreamUnreachable):
    """The database's own refusal. Its words are not passed on, because nobody can say what is in them.

    Args:
        state: the SQLSTATE that it gave; empty for none.
    """

    def __init__(self, state: str) -> None:
        why, hint = _MEANS.get(state, (f"SQLSTATE {state or 'unknown'}", "look at the log of the database"))
        super().__init__(f"the database refuses the session: {why}", hint)
        self.state = state
