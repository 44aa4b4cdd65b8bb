"""Repo vaults: secrets as age files in a folder that travels through git or any store of files, without a server.

The folder is readable by the SDKs and the tool of the agent-vault format; what that format lacks (who is a member,
which ciphertext is the right one) stands beside it in signed documents of our own, below ``.agent-vault/.x``.
"""
