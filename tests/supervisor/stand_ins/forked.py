"""Stand-ins without a start of Python: forked from the supervisor's own process, where all is imported already.

A start takes Python a quarter of a second, and a round has four. `Forked` takes the place of `subprocess.Popen` in
`supervisor.spawn`: what the supervisor hands over and how it watches and ends a child is the same, down to the pid.
"""

import contextlib
import gc
import logging
import os
import runpy
import signal
import sys
import traceback
from typing import NoReturn


class Forked:
    """A process that runs a module of the command `python -P -m MODULE ...`, as far as `supervisor.child` needs it."""

    def __init__(self, command: list[str], *, pass_fds: tuple[int, ...], env: dict[str, str], **_given: object) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _become(command[command.index("-m") + 1 :], pass_fds, env)

    def poll(self) -> int | None:
        """Its exit code, or the number of the signal that killed it, below zero; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """As `Popen` does it."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(arguments: list[str], descriptors: tuple[int, ...], environment: dict[str, str]) -> NoReturn:
    """Forgets the supervisor and runs the module; what ZeroMQ has of the supervisor's is not touched any more."""
    code = 1
    try:
        gc.freeze()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        _close_all_but({0, 1, 2, *descriptors})
        logging.root.handlers.clear()
        os.environ.clear()
        os.environ.update(environment)
        os.setpgid(0, 0)
        os.chdir("/")
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in kept:
            # The one by which the list was read is closed already.
            with contextlib.suppress(OSError):
                os.close(number)
