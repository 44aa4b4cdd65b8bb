"""What an epoch notes of the changes before it."""

from keyhole.vault.changes import noted, since


def note(*changes):
    """A note of changes, each its revision and what it is of."""
    found = b""
    for revision, *names in changes:
        found = noted(found, revision, names)
    return found


def test_what_was_changed_since_a_revision_is_named_once():
    found = note((4, "a"), (5, "b", "c"), (6, "b"))
    assert since(found, 3, 6) == ["a", "b", "c"]
    assert since(found, 5, 6) == ["b"]
    assert since(found, 6, 6) == []


def test_a_note_that_lacks_a_change_names_nothing():
    found = note((4, "a"), (6, "b"))
    assert since(found, 3, 6) is None
    assert since(found, 5, 6) == ["b"]
    assert since(found, 6, 7) is None  # the entry was sealed again since
    assert since(found, 9, 6) is None
    assert since(b"", 3, 6) is None


def test_a_note_forgets_its_oldest_changes_and_one_that_is_too_large():
    found = note(*((number, f"n{number}") for number in range(1, 101)))
    assert since(found, 36, 100) == [f"n{number}" for number in range(37, 101)]
    assert since(found, 35, 100) is None
    assert noted(found, 101, [f"m{number}" for number in range(65)]) == b""
