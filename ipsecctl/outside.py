"""What can be seen of an instance that has no supervisor, or none that answers: lock, processes, kernel objects.

psutil and all that needs it is loaded only where there is a process to look at: one that is stopped and left nothing
should be reported as quickly as one that runs.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ipc.roles import Role
from ipsecctl import kernel_objects, programs
from ipsecctl.findings import Finding, finding, ports_taken, secure_mode_lost
from ipsecctl.lock_file import LockState
from ipsecctl.report import Report, blank
from ipsecctl.saved import Saved
from ipsecctl.saved import read as read_saved

if TYPE_CHECKING:
    from ipsecctl.processes import Process


def observe(instance: str, lock: LockState, deadline: float, timeout_s: float) -> Report:
    """The status, of which only the outside is known, by the monotonic `deadline`.

    `timeout_s` is how long the supervisor was waited for.
    """
    saved = read_saved(instance)
    report = blank(instance, running=lock.held, pid=lock.pid if lock.held else 0)
    holder = holder_of(instance, lock)
    namespace = programs.namespace_of(holder) if holder else saved.network_namespace
    found: Sequence[Process] = ()
    if programs.running(instance):
        from ipsecctl import processes
        from ipsecctl.offenders import seen

        found = processes.find(instance, namespace)
        report.processes = [shown for one in found if (shown := seen(one)) is not None]
    if namespace not in (0, programs.namespace_of("self")):
        objects = kernel_objects.Counted(lines=(), error="they are in another network namespace")
    else:
        objects = kernel_objects.count(deadline)
    report.kernel_objects = [_kind(line) for line in objects.lines]
    if objects.secure:
        report.mode = "secure"
    if not objects.error:
        report.findings += secure_mode_lost(report)
    if lock.held:
        report.findings += of_silent(lock, holder, saved, found, timeout_s)
    else:
        report.findings += of_stopped(lock, saved, found, objects)
    return report


def holder_of(instance: str, lock: LockState) -> int:
    """The supervisor that holds the lock; 0 if nobody does, or if the pid in it was given to another process later."""
    if not lock.held:
        return 0
    from ipsecctl import processes

    named = processes.identify(lock.pid, instance)
    is_supervisor = named is not None and named.role is Role.SUPERVISOR
    return lock.pid if is_supervisor or lock.names_a_process else 0


def of_silent(
    lock: LockState, holder: int, saved: Saved, found: "Sequence[Process]", timeout_s: float
) -> Iterator[Finding]:
    """The lock is held, by the process `holder` if it is a supervisor, and nobody answers."""
    from ipsecctl import processes

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
    yield from ports_taken(holder)


def of_stopped(
    lock: LockState, saved: Saved, found: "Sequence[Process]", objects: kernel_objects.Counted
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
    yield from ports_taken(0)


def _offender(code: str, process: "Process", what: str) -> Iterator[Finding]:
    from ipsecctl.offenders import offender

    return offender(code, process, what)


def _kind(line: str) -> Any:
    count, _, kind = line.partition(" ")
    return SimpleNamespace(kind=kind, count=int(count))


def _dead(saved: Saved, found: "Sequence[Process]") -> Iterator[Finding]:
    alive = {(one.pid, one.start_time) for one in found}
    for one in saved.roles:
        if (one.pid, one.start_time) not in alive:
            yield finding("dead-process", f"{one.role} (pid {one.pid}) is gone, and nobody starts it again")


def _what_became_of(pid: int) -> str:
    """What is to be said of the process that a lock names and that is not its holder."""
    if not pid:
        return "it names no process"
    if programs.namespace_of(pid):
        return f"pid {pid}, which it names, is another process now"
    return f"pid {pid}, which it names, is gone"
