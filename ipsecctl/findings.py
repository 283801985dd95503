"""What is strange about an instance that answers, seen from outside: its processes, and ports that others have.

The supervisor finds what is strange about what it holds; `ipsecctl.outside` is for where there is none that answers.
docs/status.md has all codes.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from ipc import kept
from ipsecctl import ports, programs

Finding = Any
"""A namespace with the fields of `ipc.status.Finding`, which would cost more to load than it is worth here."""


def of_answering(report: Any) -> Iterator[Finding]:
    """Processes beside those of a supervisor that answers, and ports that others have."""
    roles = {(role.pid, role.start_time) for role in report.roles} | {(report.pid, report.start_time)}
    if programs.running(report.instance) - {pid for pid, _ in roles}:
        # Here, not above: where nobody else runs a program of ours, there is nothing to look at closely.
        from ipsecctl import processes
        from ipsecctl.offenders import offender

        for process in processes.find(report.instance, programs.namespace_of(report.pid)):
            if (process.pid, process.start_time) not in roles:
                yield from offender("illicit-process", process, f"is no process of the supervisor, pid {report.pid}")
    yield from ports_taken(report.pid)
    yield from secure_mode_lost(report)


def secure_mode_lost(report: Any) -> Iterator[Finding]:
    """The kernel should drop what no policy allows, as far as we know, and does not."""
    if report.mode != "secure" and kept.is_secure(report.instance):
        sentence = "secure mode is remembered, but the kernel's default policies let packets pass; ipsecctl secure"
        yield finding("secure-mode-lost", f"{sentence} blocks again, ipsecctl insecure forgets it")


def finding(code: str, sentence: str, process: Any = None) -> Finding:
    """One finding."""
    return SimpleNamespace(code=code, sentence=sentence, process=process)


def ports_taken(supervisor: int) -> Iterator[Finding]:
    """Whoever else has a port of IKE in the namespace of the supervisor's pid, or in ours where there is none."""
    for holder in ports.foreign_holders(supervisor or "self", supervisor):
        yield finding("port-taken", f"UDP port {holder.port} is held by {holder}")
