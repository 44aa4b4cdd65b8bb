"""Who keeps a key for its user outside of Keyhole's own files: the keychain of the system, a hardware token.

Seals wrap the root key of a vault with them, and repo vaults the keys of their members. Neither of them writes a key to
a file, and each of them either answers within a limit or says that it did not.
"""
