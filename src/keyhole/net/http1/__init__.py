"""HTTP/1.1 on the wire, strict in both directions: what a proxy that attaches credentials can afford.

A stair of small files, each using those above it:

- ``limits``: what a peer may make us hold.
- ``grammar``: heads in; one reading or an error (RFC 9112).
- ``framing``: where bodies end.
- ``serialise``: heads out; nothing in them can end a line early.
- ``tls``: TLS over memory buffers.
- ``wire``: one connection with back-pressure and time limits.
- ``client``: one exchange at a time with an origin.

The grammar is our own and not a lenient parser's: a head is accepted only when the whole of it matches RFC 9112, which
also gives byte-exact limits and the exact place where one message ends and the next begins.
"""
