"""The local proxy of AgentSecrets on a port of the command: ``/proxy`` and ``/health``, so that its SDK works.

``asked`` reads a request, ``names`` finds the service that is meant by it, ``said`` holds the refusals in the words
that the SDK knows, ``port`` listens and carries the call through the broker's proxy. Nothing is decided here: a service
is named to the broker, which judges, records, attaches and scrubs.
"""
