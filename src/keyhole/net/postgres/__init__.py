"""PostgreSQL's frontend/backend protocol, version 3.0 (PostgreSQL documentation, chapter "Frontend/Backend Protocol").

``messages`` are the bytes of either side, ``frames`` follow a stream of them without keeping any, ``login`` is the
client's side of a session's beginning as a conversation without a socket, ``scram`` its proofs.
"""
