"""Workflows: documents of steps that name tools and services, and never a credential.

A document is read with the place of everything in it (`reading`), looked through for credentials (`credentials`), and
becomes steps (`document`). A run (`runner`) asks others to act (`acting`), and writes each step down before it begins
and after it ended (`state`), so that a run that was killed goes on where it was.
"""
