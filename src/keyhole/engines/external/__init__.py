"""Secrets that stay where they are: other managers as sources, asked at the moment of use.

``sources/NAME`` says where one is and how to log in to it, reading ``read/NAME/PATH`` reveals what lies there, and a
service that names ``/MOUNT/read/NAME/PATH#FIELD`` lends it. Nothing that was read is stored.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.request import Operation
from keyhole.engines import Engine, Field, Route
from keyhole.engines.external import kinds, sources
from keyhole.engines.external.logins import Logins
from keyhole.engines.external.reading import READ, Reading


def make(_options: Mapping[str, str]) -> Engine:
    """The engine of one mount, with the logins at its sources that are still good."""
    logins = Logins()
    reading = Reading(logins)
    routes = (
        Route("sources", {Operation.LIST: sources.list_names}, help="Names of the sources."),
        Route(
            "sources/{name}",
            {Operation.READ: sources.read, Operation.CREATE: sources.write, Operation.DELETE: sources.delete},
            exists=sources.exists,
            fields=(
                Field("kind", f"one of {', '.join(sorted(kinds.KINDS))}", "string"),
                Field("credentials", "map of what proves who asks; it is never shown again", "map"),
                Field("credentials_from", "map of the same to secrets of this vault, as path#field", "map"),
                Field("ca_cert", "PEM of the CAs by which the source proves itself, instead of the system's", "string"),
            ),
            help="Another manager, and how to log in to it; besides these fields, the settings of its kind.",
        ),
        Route(
            "sources/{name}/test",
            {Operation.CREATE: reading.test},
            fields=(
                Field("path", "what to look for there; it takes read on it", "string"),
                Field("field", "which has to be there", "string"),
            ),
            help="Whether a source can be asked.",
        ),
        Route(
            READ + "/{name}/{path...}",
            {Operation.READ: reading.read},
            help="What lies at a path of a source.",
            source=DEFAULT_FIELD,
        ),
    )
    return Engine("external", routes)
