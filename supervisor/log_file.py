"""The log file of a detached instance, which can be moved away and reopened (SIGUSR1) while everything runs.

The children can open no file, and a descriptor of the old one would keep them writing there. So they write into a
pipe, which the supervisor, unread, copies into the file. The pipe never blocks them: where the supervisor stands
still, what is more than a pipe holds is lost.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable

from ipc.loop import Loop

PIPE_BYTES = 1024 * 1024


def open_output(path: str) -> int:
    """The file that an operator wants the log in, for appending; OSError if it can't be had, or is no regular file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


class LogFile:
    """This process's stdout and stderr, and those of its children, in one file."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        self._open_log = open_log
        self._read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._loop: Loop | None = None
        self.reopen()

    def reopen(self) -> None:
        """Opens the file again, by its name; OSError leaves the old one in use."""
        descriptor = self._open_log()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def copy_in(self, loop: Loop) -> None:
        """Copies from `loop` what the children write."""
        self._loop = loop
        loop.add_reader(self._read_end, self._copy)

    def close(self) -> None:
        """Copies what is left. The file stays open."""
        if self._loop is not None:
            self._loop.remove_reader(self._read_end)
        os.close(self.write_end)
        self._copy()
        os.close(self._read_end)

    def _copy(self) -> None:
        # The pipe is empty, or the disk is full, and then there is nowhere to say so.
        with contextlib.suppress(OSError):
            os.write(2, os.read(self._read_end, PIPE_BYTES))
