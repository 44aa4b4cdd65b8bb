"""HTTP/2 on the wire (RFC 9113), as strict as ``keyhole.net.http1`` and as bounded.

- ``limits``: what a peer may make us hold and do.
- ``budget``: how much of what costs us more than the peer.
"""
