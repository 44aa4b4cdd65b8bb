"""HTTP/2 on the wire (RFC 9113), as strict as ``keyhole.net.http1`` and as bounded.

- ``limits``: what a peer may make us hold and do; ``budget``: how much of what costs us more than the peer.
- ``frames``: frames in and out. ``fields``: header sections in and out (RFC 7541).
- ``head``: a request's header section as the head that HTTP/1.1 would have brought, or an error.
- ``reading``: frames of a peer, acted on in order, by the rules that both sides share.
- ``stream``: one request and its answer. ``intake``: what a client sends. ``server``: its connection.
- ``exchange``: one request to an upstream. ``receiving``: what an upstream sends. ``client``: its connection.
"""
