"""Whether an instance's lock is held, and by whom: asked of the kernel, never of what the file says."""

import fcntl
import json
import os
import time
from typing import NamedTuple

from ipsecctl.programs import start_time_of

TRIES = 25
PAUSE_S = 0.02


class LockState(NamedTuple):
    """The lock of an instance as it is now."""

    path: str
    exists: bool
    held: bool
    pid: int
    """As the file says; 0 if it says none. Only a held lock makes it true."""
    start_time: float = 0.0
    """Of that process, as the file says; seconds since boot."""

    @property
    def names_a_process(self) -> bool:
        """Whether the process that the file names is there still, and not another one that has got its pid."""
        try:
            return self.pid > 0 and start_time_of(self.pid) == self.start_time
        except OSError:
            return False


def look(instance: str) -> LockState:
    """The lock of `instance`."""
    path = f"{instance}/ipsecd.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return LockState(path=path, exists=False, held=False, pid=0)
    try:
        state = _stated(path, descriptor)
        try:
            # Shared, and let go at once: a supervisor that starts just now tries more than once.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return state._replace(held=True)
        return state
    finally:
        os.close(descriptor)


def look_for_holder(instance: str) -> LockState:
    """As `look`; who has just taken the lock is given a moment to write down its name."""
    state = look(instance)
    for _ in range(TRIES):
        if not state.held or state.pid:
            break
        time.sleep(PAUSE_S)
        state = look(instance)
    return state


def _stated(path: str, descriptor: int) -> LockState:
    """What the file says, whoever holds it."""
    try:
        fields = json.loads(os.pread(descriptor, 4096, 0))
        pid, start_time = int(fields["pid"]), float(fields.get("start_time", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pid, start_time = 0, 0.0
    return LockState(path=path, exists=True, held=False, pid=pid, start_time=start_time)
