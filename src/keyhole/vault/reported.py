"""The version of Vault whose API this is: what clients of the wire format decide by."""

REPORTED_VERSION = "1.14.0"
