"""Clients of a vault: one pure core that builds requests and reads answers, two transports, two ways to wait.

    with Client("https://keyhole.internal:8200", token=token) as vault:
        vault.write("services/stripe", {"hosts": ["api.stripe.com"], "secret": "stripe/api-key", "inject": …})
        answer = vault.call("GET", "https://api.stripe.com/v1/balance", bearer="stripe/api-key")

``keyhole.Client`` is this one with the means to open a vault of this machine.
"""

from keyhole.client.api import AsyncClient, Client, Transport, connect
from keyhole.client.core import Result
from keyhole.client.discover import Where, discover

__all__ = ["AsyncClient", "Client", "Result", "Transport", "Where", "connect", "discover"]
