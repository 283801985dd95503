"""One supervisor for each instance: a lock file that is held for life (flock(2)).

The kernel drops the lock with the process, so what a dead supervisor left in the file never blocks a start.
"""

import fcntl
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from ipc.process import process_start_time
from ipc.value import value
from supervisor.errors import AlreadyRunning, StartFailed

LOCK_NAME = "ipsecd.lock"
TRIES = 20
PAUSE_S = 0.02
"""A status command that looks whether the lock is held has it for some microseconds itself."""


@value
class LockHolder:
    """Which process of which boot holds a lock; the fields of the file's JSON."""

    pid: int
    start_time: float
    """Seconds since boot."""
    boot_id: str


def boot_id() -> str:
    """The random name of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Lock:
    """The lock of one instance."""

    def __init__(self, instance: str) -> None:
        self._path = f"{instance}/{LOCK_NAME}"
        self._descriptor = -1
        self.holder = LockHolder(pid=os.getpid(), start_time=process_start_time(os.getpid()), boot_id=boot_id())
        """This process."""

    def take(self) -> None:
        """Holds the lock from now on; AlreadyRunning names the process that has it.

        StartFailed if there can be no lock: it is no file (`ipsecctl stop` removes it), or the disk is full.
        """
        try:
            self._take()
        except OSError as error:
            self.release()
            raise StartFailed(f"{self._path}: {error.strerror}") from error

    def _take(self) -> None:
        holder = ""
        for _ in range(TRIES):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder_text(descriptor)
                os.close(descriptor)
                time.sleep(PAUSE_S)
                continue
            if self._is_still_the_file(descriptor):
                self._descriptor = descriptor
                self._write()
                return
            os.close(descriptor)
        raise AlreadyRunning(f"ipsecd is already running{holder}")

    def release(self) -> None:
        """Removes the file, if it is still ours, then lets go; harmless if the lock is not held."""
        if self._descriptor >= 0:
            if self._is_still_the_file(self._descriptor):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_still_the_file(self, descriptor: int) -> bool:
        """Whether nobody removed or replaced the file between our open and our lock."""
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _write(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, (json.dumps(asdict(self.holder)) + "\n").encode(), 0)


def _holder_text(descriptor: int) -> str:
    try:
        return f" (pid {int(json.loads(os.pread(descriptor, 4096, 0))['pid'])})"
    except (ValueError, KeyError, TypeError):
        # It has the lock and has not written its name yet.
        return ""
