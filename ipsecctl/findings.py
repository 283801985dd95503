"""What is strange about an instance that answers, seen from outside: its processes, and ports that others have.

The supervisor finds what is strange about what it holds; `ipsecctl.outside` is for where there is none that answers.
docs/status.md has all codes.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ipsecctl import ports
from ipsecctl.processes import Process

Finding = Any
"""A namespace with the fields of `ipc.status.Finding`, which would cost more to load than it is worth here."""


def of_answering(report: Any, found: Sequence[Process]) -> Iterator[Finding]:
    """Processes beside those of a supervisor that answers, and ports that others have."""
    known = {(role.pid, role.start_time) for role in report.roles} | {(report.pid, report.start_time)}
    strangers = [process for process in found if (process.pid, process.start_time) not in known]
    if strangers:
        # Here, not above: an instance that is well is reported without it.
        from ipsecctl.offenders import offender

        for process in strangers:
            yield from offender("illicit-process", process, f"is no process of the supervisor, pid {report.pid}")
    yield from ports_taken(report.pid)


def finding(code: str, sentence: str, process: Any = None) -> Finding:
    """One finding."""
    return SimpleNamespace(code=code, sentence=sentence, process=process)


def ports_taken(supervisor: int) -> Iterator[Finding]:
    """Whoever else has a port of IKE in the namespace of the supervisor's pid, or in ours where there is none."""
    for holder in ports.foreign_holders(supervisor or "self", supervisor):
        yield finding("port-taken", f"UDP port {holder.port} is held by {holder}")
