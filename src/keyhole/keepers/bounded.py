"""Asking what may never answer: a keychain without its bus, a token that was pulled out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from keyhole.core.errors import KeyholeError, Sealed

T = TypeVar("T")


def bounded(
    work: Callable[[], T], timeout: float, failed: Callable[[Exception], KeyholeError], hint: str, *, what: str
) -> T:
    """Run ``work`` in a thread, and leave it behind if it takes longer than ``timeout`` seconds.

    Args:
        work: what may take long.
        timeout: in seconds.
        failed: turns an error that is not one of ours into one.
        hint: the next step for who waited in vain.
        what: who is asked, for the errors.

    Raises:
        Sealed: there was no answer in time.
        KeyholeError: what ``work`` or ``failed`` gives.
    """
    answers: queue.SimpleQueue[T | KeyholeError] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(work())
        except KeyholeError as error:
            answers.put(error)
        except Exception as error:  # noqa: BLE001  # drivers raise what they like
            answers.put(failed(error))

    threading.Thread(target=run, name="seal", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise Sealed(f"{what} did not answer within {timeout:g} s", hint) from None
    if isinstance(answer, KeyholeError):
        raise answer
    return answer
