"""Making many objects that all stay: looking for garbage among them meanwhile takes a third of the time for nothing."""

import contextlib
import gc
from collections.abc import Iterator


def look_seldom() -> None:
    """From now on cycles are looked for seldom: SAs, policies and what comes with them stay, and have hardly any."""
    gc.set_threshold(100_000, 20, 100)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles goes on inside, nor at the end because of what was made: it counts as old at once."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            # To where nothing is looked at, and from there among the oldest: both are done in no time.
            gc.freeze()
            gc.unfreeze()
            gc.enable()
