"""The forward proxy: ``CONNECT`` and absolute-form in, ``Call``s to the broker, answers out. It decides nothing.

server = ProxyServer(broker, ListenerLimits())
host, port = await server.listen("127.0.0.1", 8210)
...
await server.close()
"""

from keyhole.faces.proxy.owner import Broker
from keyhole.faces.proxy.server import ProxyServer

__all__ = ["Broker", "ProxyServer"]
