"""One child process: started, watched, ended, and started again when it dies."""

import logging
import signal
import subprocess
import time
from collections.abc import Callable

from ipc.loop import Loop, Timer
from ipc.patience import patient
from ipc.process import process_start_time
from supervisor.backoff import FORGIVEN_AFTER_S, Backoff
from supervisor.child_states import ALIVE, ChildState, enter
from supervisor.role_table import RoleRow

log = logging.getLogger(__name__)

HELLO_WITHIN_S = patient(10.0)
"""From the start of a process to its Hello."""

Spawn = Callable[[RoleRow], "subprocess.Popen[bytes]"]


class Child:
    """The present process of one role, and the record of those before it.

    `on_gone` is called after each death, when the next start is already planned.
    """

    def __init__(self, row: RoleRow, loop: Loop, spawn: Spawn, on_gone: Callable[["Child"], None]) -> None:
        self.row = row
        self.state = ChildState.DOWN
        self.start_time = 0.0
        """Seconds since boot: with the pid, the identity of the process."""
        self.started_at = 0.0
        """Monotonic; of the present process, or of the last."""
        self.restarts = 0
        self.last_exit = ""
        """Why the last process ended, for people."""
        self.faults = 0
        """How many processes in a row ended by their own fault, none of which ran for long."""
        self._loop = loop
        self._spawn = spawn
        self._on_gone = on_gone
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Timer | None = None
        self._wanted = False
        self._reason = ""

    @property
    def name(self) -> str:
        """The role's name, for people; a second process of a role has a number behind it."""
        return self.row.name

    @property
    def pid(self) -> int:
        """Of the present process; 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def failed(self) -> bool:
        """It died so often that something must be wrong with it. It is tried again all the same."""
        return self._backoff.failed

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.state in ALIVE

    def start(self) -> None:
        """Starts a process now; if there can be none, that counts as a death."""
        self._wanted = True
        self._enter(ChildState.STARTING)
        self.started_at = time.monotonic()
        self._reason = ""
        try:
            self._process = self._spawn(self.row)
            self.start_time = process_start_time(self._process.pid)
        except OSError as error:
            self._gone(f"could not be started: {error}")
            return
        self._timer = self._loop.call_later(HELLO_WITHIN_S, self._no_hello)
        log.debug("%s started, pid %d", self.name, self.pid)

    def said_hello(self, pid: int) -> bool:
        """Its process says it is ready; False if it was another process, or too late."""
        if self.state is not ChildState.STARTING or pid != self.pid:
            return False
        self._cancel_timer()
        self._enter(ChildState.UP)
        self._timer = self._loop.call_later(FORGIVEN_AFTER_S, self._ran_long)
        return True

    def kill(self, reason: str) -> None:
        """Kills the process; it is started again."""
        if self.state in (ChildState.STARTING, ChildState.UP):
            log.warning("%s (pid %d) is killed: %s", self.name, self.pid, reason)
            self._end(reason, signal.SIGKILL)

    def stop(self) -> None:
        """Wants it no more; it will not be started again. A living process goes on until told by `end` or `Stop`."""
        self._wanted = False
        if self.state is ChildState.WAITING:
            self._cancel_timer()
            self._enter(ChildState.DOWN)
        elif self.state in (ChildState.STARTING, ChildState.UP):
            self._cancel_timer()
            self._reason = "the instance stops"
            self._enter(ChildState.ENDING)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if there is one still."""
        if self._process is not None:
            self._process.send_signal(number)

    def reap(self) -> None:
        """Looks whether the process has ended, and draws the consequences."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            # Whom somebody else has killed is not to blame.
            if self._reason or -code not in (signal.SIGKILL, signal.SIGTERM):
                self.faults += 1
            self._gone(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _end(self, reason: str, number: signal.Signals) -> None:
        self._cancel_timer()
        self._reason = reason
        self._enter(ChildState.ENDING)
        self.send_signal(number)

    def _gone(self, how: str) -> None:
        self._cancel_timer()
        pid, self._process = self.pid, None
        self.last_exit = f"{how} ({self._reason})" if self._reason else how
        if not self._wanted:
            self._enter(ChildState.DOWN)
            log.debug("%s (pid %d) has ended: %s", self.name, pid, self.last_exit)
        else:
            self._enter(ChildState.WAITING)
            delay_s = self._backoff.next_delay_s(time.monotonic() - self.started_at)
            self._timer = self._loop.call_later(delay_s, self._start_again)
            log.error("%s (pid %d) has died: %s; started again in %g s", self.name, pid, self.last_exit, delay_s)
        self._on_gone(self)

    def _start_again(self) -> None:
        self.restarts += 1
        self.start()

    def _ran_long(self) -> None:
        self.faults = 0
        self._backoff.forgive()

    def _no_hello(self) -> None:
        self.kill(f"no Hello within {HELLO_WITHIN_S:g} s")

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _enter(self, new: ChildState) -> None:
        self.state = enter(self.name, self.state, new)
