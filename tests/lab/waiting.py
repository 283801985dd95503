"""Bounded waiting for something that others bring about."""

import resource
import time
from collections.abc import Callable

from tests.lab.namespaces import LabError


def wait_until(what: str, condition: Callable[[], bool], *, timeout_s: float = 30.0, every_s: float = 0.02) -> float:
    """Waits until `condition` holds; seconds that took. LabError naming `what` if it never does.

    What is awaited needs the processor: asking takes no more than about a third of one, however often it should be.
    """
    start, asked_s = time.monotonic(), _cpu_s()
    while not condition():
        if time.monotonic() - start > timeout_s:
            raise LabError(f"after {timeout_s:g} s still not so: {what}")
        time.sleep(max(every_s, min(1.0, 2 * (_cpu_s() - asked_s))))
        asked_s = _cpu_s()
    return time.monotonic() - start


def _cpu_s() -> float:
    """The time that we and the commands we ran have had of a processor."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
