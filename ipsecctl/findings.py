"""What is strange about an instance, seen from outside: its processes, lock, ports and kernel objects.

The supervisor finds what is strange about what it holds; this is the rest. docs/status.md has all codes.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ipc.roles import Role
from ipsecctl import kernel_objects, ports, processes
from ipsecctl.lock_file import LockState
from ipsecctl.output import duration
from ipsecctl.processes import Process
from ipsecctl.saved_state import SavedState

Finding = Any
"""A namespace with the fields of `ipc.status.Finding`, which would cost more to load than it is worth here."""


def of_answering(report: Any, found: Sequence[Process]) -> Iterator[Finding]:
    """Processes beside those of a supervisor that answers, and ports that others have."""
    known = {(role.pid, role.start_time) for role in report.roles} | {(report.pid, report.start_time)}
    for process in found:
        if (process.pid, process.start_time) not in known:
            yield from _offender("illicit-process", process, f"is no process of the supervisor, pid {report.pid}")
    yield from _ports(report.pid)


def of_silent(lock: LockState, saved: SavedState, found: Sequence[Process], timeout_s: float) -> Iterator[Finding]:
    """The lock is held, and nobody answers."""
    holder = lock.pid if is_holder(lock, saved, found) else 0
    if holder:
        why = "is stopped by a signal" if processes.is_stopped(holder) else "holds the lock"
        sentence = f"the supervisor (pid {holder}) {why} and did not answer within {timeout_s:g} s"
        yield finding("unresponsive", sentence)
    else:
        yield finding("lock-mismatch", f"{lock.path} is held, but {_what_became_of(lock.pid)}")
    known = {(one.pid, one.start_time) for one in saved.roles}
    for process in found:
        if process.pid != holder and (process.pid, process.start_time) not in known:
            yield from _offender("illicit-process", process, "is none that the supervisor has saved")
    yield from _dead(saved, found)
    yield from _ports(holder)


def is_holder(lock: LockState, saved: SavedState, found: Sequence[Process]) -> bool:
    """Whether the process that a held lock names is the supervisor, and not one that was given its pid later."""
    if any(one.pid == lock.pid and one.role is Role.SUPERVISOR for one in found):
        return True
    return lock.pid == saved.pid != 0 and saved.start_time == processes.start_time_of(lock.pid)


def of_stopped(
    lock: LockState, saved: SavedState, found: Sequence[Process], objects: kernel_objects.Counted
) -> Iterator[Finding]:
    """Nobody holds the lock: whatever is there is a leftover."""
    for process in found:
        yield from _offender("orphaned-process", process, f"runs, and nobody holds {lock.path}")
    if lock.exists:
        sentence = f"{lock.path} is held by nobody: {_what_became_of(lock.pid)}; ipsecctl stop cleans up"
        yield finding("stale-lock", sentence)
    elif saved.exists:
        yield finding("stale-state", f"{saved.path} was left; ipsecctl stop cleans up")
    yield from (
        finding("stale-object", f"left in the kernel: {line}; ipsecctl stop cleans up") for line in objects.lines
    )
    if objects.error:
        yield finding("kernel-unknown", f"the kernel's objects could not be counted: {objects.error}")
    yield from _ports(0)


def finding(code: str, sentence: str, process: Any = None) -> Finding:
    """One finding."""
    return SimpleNamespace(code=code, sentence=sentence, process=process)


def seen(process: Process) -> Any:
    """A process with the fields of `ipc.status.SeenProcess`; None if it has ended."""
    more = processes.details(process)
    if more is None:
        return None
    return SimpleNamespace(
        role=process.role.value,
        pid=process.pid,
        start_time=process.start_time,
        uid=more.uid,
        age_s=round(more.age_s, 1),
        state=more.state,
        command=more.command,
    )


def _offender(code: str, process: Process, what: str) -> Iterator[Finding]:
    more = processes.details(process)
    if more is not None and not processes.is_starting(process, more):
        sentence = f"{process} {what}: {more.user}, {duration(more.age_s)} old: {more.command}"
        yield finding(code, sentence, seen(process))


def _dead(saved: SavedState, found: Sequence[Process]) -> Iterator[Finding]:
    alive = {(one.pid, one.start_time) for one in found}
    for one in saved.roles:
        if (one.pid, one.start_time) not in alive:
            yield finding("dead-process", f"{one.role} (pid {one.pid}) is gone, and nobody starts it again")


def _ports(supervisor: int) -> Iterator[Finding]:
    for holder in ports.foreign_holders(supervisor or "self", supervisor):
        yield finding("port-taken", f"UDP port {holder.port} is held by {holder}")


def _what_became_of(pid: int) -> str:
    """What is to be said of the process that a lock names and that is not its holder."""
    if not pid:
        return "it names no process"
    if processes.namespace_of(pid):
        return f"pid {pid}, which it names, is another process now"
    return f"pid {pid}, which it names, is gone"
