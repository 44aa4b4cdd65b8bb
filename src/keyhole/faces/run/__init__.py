"""``keyhole run``: a command whose HTTPS goes through the broker and that never holds a key.

``plan`` says what is to be run, ``environment`` and ``trust`` what the command finds around it, ``child`` runs it. On
Linux a small launcher process of its own (``launcher``, with ``keyhole.process``) stands between: it enters the
namespaces, starts the command and passes signals on. The launcher is a fresh interpreter, so that no copy of this
process's memory, with the vault's keys in it, ever lies beside the command; its modules import little, because every
run waits for them. This package imports nothing for the same reason.
"""
