"""The files of a vault that are for git: what it leaves out, and that it changes nothing in what it keeps.

Attributes of the whole repository and ``core.autocrlf`` let git write other bytes into the work tree than were
committed. An age file is taken for text when few of its bytes look otherwise, so it would not open any more.
"""

from __future__ import annotations

IGNORE, ATTRIBUTES = ".gitignore", ".gitattributes"
IGNORED = b"# agent-vault: block unencrypted key material\n*.key\n*.pem\n**/private.*\n!**/*.escrow\n"
AS_IT_IS = "-text -ident -filter !working-tree-encoding"
"""For git: the bytes in the work tree are those of the commit."""
UNCHANGED = f"# these bytes are signed: git changes none of them\n* {AS_IT_IS}\n".encode()
_HARMLESS = frozenset({"binary", "diff", "merge", "linguist-generated"})


def is_attributes(path: str) -> bool:
    """Whether git takes a file for attributes, on some system at least."""
    return path.rpartition("/")[2].casefold() == ATTRIBUTES


def changes_bytes(attributes: bytes) -> bool:
    """Whether attributes may let git write other bytes than were committed; what is not known may do so."""
    for line in attributes.decode(errors="replace").splitlines():
        pattern, *words = line.split() or ["#"]
        if pattern.startswith("#"):
            continue
        if pattern.startswith("[attr]") or not all(
            word.startswith(("-", "!")) or word.partition("=")[0] in _HARMLESS for word in words
        ):
            return True
    return False
