"""The processes of an instance, found by what they are: the module that Python runs, and the instance it was told.

psutil lists them and says how they are. A pid alone proves nothing: it may have been given to somebody else. A process
is known by pid and start time, and a signal goes through a descriptor of the process (pidfd) after another look at who
it is.
"""

import os
import select
import signal
import time
from dataclasses import dataclass

import psutil

from ipc.roles import Role
from ipsecctl.programs import instance_in, namespace_of, program_in, role_in, start_time_of

_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of an instance."""

    role: Role
    pid: int
    start_time: float
    """Seconds since boot, from clock ticks: compared by equality, with what the supervisor says too."""

    def __str__(self) -> str:
        return f"{self.role.value} (pid {self.pid})"


def find(instance: str, network_namespace: int = 0) -> tuple[Process, ...]:
    """All processes of `instance` in a network namespace (an inode; 0 is ours), in the order of their pids.

    Another network namespace is another instance, were its directory called the same (in a container).
    """
    namespace = network_namespace or namespace_of("self")
    found = (process for pid in psutil.pids() if (process := identify(pid, instance)) is not None)
    return tuple(process for process in found if namespace_of(process.pid) == namespace)


def identify(pid: int, instance: str) -> Process | None:
    """What process `pid` is to `instance`; None if nothing, or if it has ended."""
    try:
        process = psutil.Process(pid)
        role = role_in(process.cmdline(), instance)
        if role is None or process.status() in _ENDED:
            return None
        return Process(role=role, pid=pid, start_time=start_time_of(pid))
    except (psutil.Error, OSError):
        return None


def is_stopped(pid: int) -> bool:
    """Whether `pid` is stopped by a signal."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def is_ours(pid: int) -> bool:
    """Whether `pid` is a process of ipsecd, of whatever instance."""
    try:
        return program_in(psutil.Process(pid).cmdline()) is not None
    except psutil.Error:
        return False


def neighbour(instance: str) -> str:
    """Another instance that lives in this network namespace, for people; empty if there is none.

    It owns the kernel objects there, which are not for us to touch.
    """
    here = namespace_of("self")
    for process in psutil.process_iter(["cmdline"]):
        program = program_in(process.info["cmdline"] or [])
        other = instance_in(program[0], program[1]) if program is not None else ""
        if other not in ("", instance) and namespace_of(process.pid) == here:
            return f"{other} (pid {process.pid})"
    return ""


def end(process: Process, instance: str, grace_s: float) -> str:
    """Ends `process`: TERM, then KILL, and sees that it is gone; what was done, for people."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return f"{process} had ended already"
    try:
        if identify(process.pid, instance) != process:
            return f"{process} had ended already"
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(descriptor, number)
            if _wait(descriptor, grace_s):
                return f"{process} was ended by {number.name}"
    except ProcessLookupError:
        return f"{process} had ended already"
    finally:
        os.close(descriptor)
    return f"{process} does not go, not even by SIGKILL"


def _wait(descriptor: int, timeout_s: float) -> bool:
    """Whether the process of this pidfd ends within `timeout_s`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if poll.poll(left_s * 1000):
            return True
    return False
