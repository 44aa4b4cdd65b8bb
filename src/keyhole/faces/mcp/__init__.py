"""Keyhole for clients of the Model Context Protocol: an agent finds services, makes calls and asks why not.

The protocol is spoken by the official SDK, which is imported when a server starts.
"""
