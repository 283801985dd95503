"""Whether an instance's lock is held, and by whom: asked of the kernel, never of what the file says."""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

TRIES = 25
PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState:
    """The lock of an instance as it is now."""

    path: str
    exists: bool
    held: bool
    pid: int
    """As the file says; 0 if it says none. Only a held lock makes it true."""


def look(instance: str) -> LockState:
    """The lock of `instance`."""
    path = f"{instance}/ipsecd.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return LockState(path=path, exists=False, held=False, pid=0)
    try:
        pid = _pid_in(os.pread(descriptor, 4096, 0))
        try:
            # Shared, and let go at once: a supervisor that starts just now tries more than once.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return LockState(path=path, exists=True, held=True, pid=pid)
        return LockState(path=path, exists=True, held=False, pid=pid)
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


def asker() -> str:
    """Who runs this command, for the record: the login uid (who has become root since) and our parent."""
    try:
        login = Path("/proc/self/loginuid").read_text().strip()
    except OSError:
        login = ""
    who = f"login uid {login}" if login not in ("", "4294967295") else f"uid {os.getuid()}"
    return f"{who}, pid {os.getppid()}"


def _pid_in(content: bytes) -> int:
    try:
        return int(json.loads(content)["pid"])
    except (ValueError, KeyError, TypeError):
        return 0
