"""What the library raises for keys, certificates and requests of others that it cannot read.

Not only ``ValueError``: kinds of names, versions and curves that it does not know have errors of their own, and what it
looks up in a table of its own comes as ``KeyError``. Whoever reads what a stranger sent catches all of them.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

UNREADABLE: tuple[type[Exception], ...] = (
    AttributeError,
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
UNPROVEN: tuple[type[Exception], ...] = (*UNREADABLE, InvalidSignature)
"""The same, and that a signature is not the one that it should be."""
