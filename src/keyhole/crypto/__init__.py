"""HAZMAT: the only folder that imports ``cryptography``. Pure: bytes in, bytes out; no I/O, no await.

One primitive a file, each with the reason why it is safe *here*. What does not open is ``IntegrityError`` with one
message for every cause, so that an error is no oracle; a wrong parameter is ``InvalidRequest``.
"""
