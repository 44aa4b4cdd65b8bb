"""Users of databases that live as long as their leases, as Vault's engine of that name.

``config/NAME`` says how to log in to a database, ``roles/NAME`` which statements make a user, and reading
``creds/NAME`` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.request import Operation
from keyhole.engines import Engine, Route
from keyhole.engines.database import connections, roles
from keyhole.engines.database.connections import Connections
from keyhole.engines.database.root import Root
from keyhole.engines.database.static import PATH, SETTINGS, StaticRoles
from keyhole.engines.database.strays import Strays
from keyhole.engines.database.users import Users
from keyhole.engines.settings import fields


def make(_options: Mapping[str, str]) -> Engine:
    """The engine of one mount, with the sessions that it has open."""
    known = Connections()
    users, static = Users(known), StaticRoles(known)
    routes = (*_routes(known, users), *_static_routes(static))
    return Engine(
        "database",
        routes,
        revoke=users.revoke,
        revoke_all=users.revoke_all,
        renew=users.renew,
        strays=Strays(known).find,
        due=static.due,
    )


def _routes(known: Connections, users: Users) -> tuple[Route, ...]:
    about = (*connections.SETTINGS, *connections.DETAILS, *connections.SECRETS, connections.VERIFY)
    return (
        Route("config", {Operation.LIST: connections.list_names}, help="Names of the connections."),
        Route(
            "config/{name}",
            {Operation.READ: known.read, Operation.CREATE: known.write, Operation.DELETE: known.delete},
            fields=fields(about),
            help="A database, and how to log in to it.",
        ),
        Route("reset/{name}", {Operation.CREATE: known.reset}, help="Lets go of the sessions with a database."),
        Route(
            "reload/{name}", {Operation.CREATE: known.reload}, help="Lets go of the sessions with a kind of databases."
        ),
        Route(
            "rotate-root/{name}",
            {Operation.CREATE: Root(known).rotate},
            help="Replaces the password with which Keyhole logs in.",
        ),
        Route("roles", {Operation.LIST: roles.list_names}, help="Names of the roles."),
        Route(
            "roles/{name}",
            {Operation.READ: roles.show, Operation.CREATE: roles.write, Operation.DELETE: roles.delete},
            exists=roles.exists,
            fields=fields(roles.SETTINGS),
            help="Which statements make a user, and for how long.",
        ),
        Route("creds/{name}", {Operation.READ: users.create}, help="A new user with its password.", source=""),
    )


def _static_routes(static: StaticRoles) -> tuple[Route, ...]:
    return (
        Route(PATH, {Operation.LIST: static.list_names}, help="Names of the static roles."),
        Route(
            PATH + "/{name}",
            {Operation.READ: static.read, Operation.CREATE: static.write, Operation.DELETE: static.delete},
            exists=static.exists,
            fields=fields(SETTINGS),
            help="A user that is there already, whose password is replaced from time to time.",
        ),
        Route("static-creds/{name}", {Operation.READ: static.creds}, help="The password of a static role.", source=""),
        Route("verify-role/{name}", {Operation.CREATE: static.verify}, help="Logs in as a static role."),
        Route("rotate-role/{name}", {Operation.CREATE: static.rotate}, help="Replaces the password of a static role."),
    )
