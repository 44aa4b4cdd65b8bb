"""Logs, traces and test reports without credentials: known values in every encoding first, then what looks like one.

    import logging
    from keyhole.logs import LogScrubber, ScrubFilter, ScrubFormatter

    scrubber = LogScrubber(env=["STRIPE_API_KEY"])       # and all that clients of this process fetch
    handler.addFilter(ScrubFilter(scrubber))             # message, arguments, exception, stack, extra attributes
    handler.setFormatter(ScrubFormatter(formatter, scrubber))   # all that the formatter makes of it

``keyhole.logs.structlog`` has a processor, ``keyhole.logs.opentelemetry`` processors of spans and logs, and
``keyhole.logs.pytest_plugin`` fails tests that print a value. Promises: nothing raises into the application; what
cannot be looked through is withheld; structured logs stay valid. What is not found is in ``docs/scrubbing.md``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .records import ScrubFilter, ScrubFormatter, install
    from .scrubber import WITHHELD, LogScrubber

__all__ = ["WITHHELD", "LogScrubber", "ScrubFilter", "ScrubFormatter", "install"]


def __getattr__(name: str) -> Any:
    """What is asked for: pytest loads this package wherever Keyhole is installed, and must start fast."""
    if name not in __all__:
        raise AttributeError(f"module 'keyhole.logs' has no attribute {name!r}")
    from . import records  # noqa: PLC0415  # that is the point

    return getattr(records, name)
