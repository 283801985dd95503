"""What is strange about an instance that answers, seen from outside: its processes, and ports that others have.

The supervisor finds what is strange about what it holds; `ipsecctl.outside` is for where there is none that answers.
docs/status.md has all codes.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ipsecctl import ports, processes
from ipsecctl.output import duration
from ipsecctl.processes import Process

Finding = Any
"""A namespace with the fields of `ipc.status.Finding`, which would cost more to load than it is worth here."""


def of_answering(report: Any, found: Sequence[Process]) -> Iterator[Finding]:
    """Processes beside those of a supervisor that answers, and ports that others have."""
    known = {(role.pid, role.start_time) for role in report.roles} | {(report.pid, report.start_time)}
    for process in found:
        if (process.pid, process.start_time) not in known:
            yield from offender("illicit-process", process, f"is no process of the supervisor, pid {report.pid}")
    yield from ports_taken(report.pid)


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


def offender(code: str, process: Process, what: str) -> Iterator[Finding]:
    """An illicit or orphaned process, with all that tells who it is; nothing if it ends or is only starting."""
    more = processes.details(process)
    if more is not None and not processes.is_starting(process, more):
        sentence = f"{process} {what}: {more.user}, {duration(more.age_s)} old: {more.command}"
        yield finding(code, sentence, seen(process))


def ports_taken(supervisor: int) -> Iterator[Finding]:
    """Whoever else has a port of IKE in the namespace of the supervisor's pid, or in ours where there is none."""
    for holder in ports.foreign_holders(supervisor or "self", supervisor):
        yield finding("port-taken", f"UDP port {holder.port} is held by {holder}")
