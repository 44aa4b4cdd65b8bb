"""Keyhole: AI agents use credentials without ever holding them."""

__version__ = "0.1.0"
