"""What holds for every test: how often Python looks for garbage."""

import gc


def pytest_configure():
    """Thousands of tests are found, and none of what is found becomes garbage: look seldom."""
    gc.set_threshold(20_000, 10, 10)


def pytest_collection_finish():
    """What was found stays to the end: never look at it again."""
    gc.freeze()
