"""Databases without their passwords: PostgreSQL's and MySQL's own protocols in, sessions of the broker out.

A client comes through a tunnel of the proxy, which brings its token, or to a listener, where the token is its password.
What it speaks is translated; whether it may is decided by the broker.

    face = SqlFace(broker.sessions, broker.note_refusal)
    await face.serve(wire, SqlCall(token, "postgres", "shop", authority, remote=remote))    # from a tunnel
    server = SqlServer(face, "postgres")                                                    # a listener
    await server.listen("127.0.0.1", 6432)
"""

from keyhole.faces.sql.face import SqlFace
from keyhole.faces.sql.server import SqlServer

__all__ = ["SqlFace", "SqlServer"]
