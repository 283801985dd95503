"""Bounded waiting for something that others bring about."""

import time
from collections.abc import Callable

from tests.lab.namespaces import LabError


def wait_until(what: str, condition: Callable[[], bool], *, timeout_s: float = 30.0, every_s: float = 0.02) -> float:
    """Waits until `condition` holds; seconds that took. LabError naming `what` if it never does."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout_s:
            raise LabError(f"after {timeout_s:g} s still not so: {what}")
        time.sleep(every_s)
    return time.monotonic() - start
