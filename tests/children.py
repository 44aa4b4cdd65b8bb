"""Programs that a test starts, and that do not outlive it."""

import contextlib
import subprocess


@contextlib.contextmanager
def child(*args, **options):
    """A process; killed when the test fails while it runs: `Popen` alone would then wait for its end, for ever."""
    with subprocess.Popen(*args, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
