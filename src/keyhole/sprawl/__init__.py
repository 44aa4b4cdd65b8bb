"""Where credentials lie about: in what is staged, in files, in history. Looks, and says where; it never shows a value.

    repository = Repository.at(Path("."))
    for staged in repository.staged():
        found = look(staged.path, repository.blob(staged.blob))

Promises: nothing of what is looked at is run or expanded; memory is bounded by ``Limits``; a finding has no value.
"""

from .finding import Accepted, Finding, Limits, look
from .repository import Repository, Staged

__all__ = ["Accepted", "Finding", "Limits", "Repository", "Staged", "look"]
