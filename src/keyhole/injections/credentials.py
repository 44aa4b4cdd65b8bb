"""User name and password, from one value ``user:password`` or from the fields ``username`` and ``password``."""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject


def user_and_password(how: Inject, values: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    """The user name, which has no colon, and the password.

    Args:
        how: whose option ``user`` is the user name where the value is the password alone.
        values: the fields of the loan.

    Raises:
        InvalidRequest: there is no user name, or it has a colon.
    """
    if "username" in values and "password" in values:
        user, password = values["username"], values["password"]
        if b":" in user:
            raise InvalidRequest("the user name has a colon, which Basic and Digest cannot carry (RFC 7617, section 2)")
        return user, password
    [value] = values.values()
    if how["user"]:
        return str(how["user"]).encode(), value
    user, colon, password = value.partition(b":")
    if not colon:
        raise InvalidRequest(
            "the secret has no user name",
            'store it as user:password, or as fields: keyhole set NAME --json-in < {"username": …, "password": …}',
        )
    return user, password
