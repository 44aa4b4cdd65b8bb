"""Ciphers of other programs, for reading what they wrote and writing what they read; nothing of ours is sealed so.

Each file says whose format it is, what that format leaves open, and what is refused although the format allows it.
"""
