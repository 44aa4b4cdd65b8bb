"""Bounds on sessions with databases."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """Bounds on sessions with databases.

    Attributes:
        sessions: at once.
        connect: seconds for name resolution and TCP.
        login: seconds for TLS and login together.
        idle: seconds without a byte in either direction.
        longest: seconds that a session may last; 0 for as long as its lease.
        write: seconds for a peer that does not read.
        farewell: seconds in which a database may read what ends a session.
    """

    sessions: int = 1_000
    connect: float = 10.0
    login: float = 20.0
    idle: float = 3_600.0
    longest: float = 0.0
    write: float = 60.0
    farewell: float = 2.0
