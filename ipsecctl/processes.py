"""The processes of an instance, found by what they are: the module that Python runs, and the instance it was told.

A pid alone proves nothing: it may have been given to somebody else. A process is known by pid and start time, and a
signal goes through a descriptor of the process (pidfd) after another look at who it is.
"""

import os
import select
import signal
import time
from dataclasses import dataclass

from ipc.roles import MODULES, Role
from ipsecctl.arguments import DEFAULT_INSTANCE

_ROLE_OF_MODULE = {module: role for role, module in MODULES.items()}
_INTERPRETER_FLAGS = ("-P", "-I", "-E", "-s", "-B", "-u")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of an instance."""

    role: Role
    pid: int
    start_time_ticks: int
    """Clock ticks since boot."""

    @property
    def start_time(self) -> float:
        """Seconds since boot, as the supervisor says it."""
        return self.start_time_ticks / os.sysconf("SC_CLK_TCK")

    def __str__(self) -> str:
        return f"{self.role.value} (pid {self.pid})"


def find(instance: str, network_namespace: int = 0) -> tuple[Process, ...]:
    """All processes of `instance` in a network namespace (an inode; 0 is ours), in the order of their pids.

    Another network namespace is another instance, were its directory called the same (in a container).
    """
    namespace = network_namespace or namespace_of("self")
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    found = (process for pid in pids if (process := identify(pid, instance)) is not None)
    return tuple(process for process in found if namespace_of(process.pid) == namespace)


def namespace_of(pid: int | str) -> int:
    """The network namespace of a process, as its inode; 0 if the process has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def is_stopped(pid: int) -> bool:
    """Whether `pid` is stopped by a signal."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False


def is_ours(pid: int) -> bool:
    """Whether `pid` is a process of ipsecd, of whatever instance."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]
    except OSError:
        return False
    return program_in(arguments) is not None


def identify(pid: int, instance: str) -> Process | None:
    """What process `pid` is to `instance`; None if nothing, or if it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]
        role = role_in(arguments, instance)
        if role is None:
            return None
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(role=role, pid=pid, start_time_ticks=int(fields[19]))


def role_in(arguments: list[str], instance: str) -> Role | None:
    """The role of `instance` that a command line runs: PYTHON [-P] -m MODULE ... --instance DIR, or .../ipsecd ..."""
    program = program_in(arguments)
    if program is None:
        return None
    role, options = program
    named = DEFAULT_INSTANCE if role is Role.SUPERVISOR else ""
    for position, option in enumerate(options):
        if option == "--instance":
            named = options[position + 1] if position + 1 < len(options) else ""
        elif option.startswith("--instance="):
            named = option.removeprefix("--instance=")
    return role if named and os.path.abspath(named) == instance else None


def program_in(arguments: list[str]) -> tuple[Role, list[str]] | None:
    """The role that a command line runs, of whatever instance, and its options; None if it is no ipsecd."""
    rest = arguments[1:]
    while rest and rest[0] in _INTERPRETER_FLAGS:
        rest = rest[1:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        role = _ROLE_OF_MODULE.get(rest[1])
        return (role, rest[2:]) if role is not None else None
    if rest and os.path.basename(rest[0]) == "ipsecd":
        return Role.SUPERVISOR, rest[1:]
    return None


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
