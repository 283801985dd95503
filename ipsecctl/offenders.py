"""Processes that should not be there, with all that tells who they are: role, pid, user, age, command line."""

import os
import pwd
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ipc.roles import STARTING_NAME, SUPERVISOR_NAME, Role
from ipsecctl.findings import Finding, finding
from ipsecctl.output import duration
from ipsecctl.processes import Process

LONGEST_START_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """More about a process, for people."""

    uid: int
    age_s: float
    state: str
    """running, sleeping, stopped ..."""
    command: str
    name: str
    """What it calls itself (/proc/PID/comm)."""

    @property
    def user(self) -> str:
        """The uid, and its name if it has one."""
        try:
            return f"uid {self.uid} ({pwd.getpwuid(self.uid).pw_name})"
        except KeyError:
            return f"uid {self.uid}"


def details(process: Process) -> Details | None:
    """More about `process`; None if it has ended."""
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            command = " ".join(os.fsdecode(part) for part in file.read().split(b"\0")[:-1])
        with open(f"/proc/{process.pid}/status", encoding="utf-8", errors="replace") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    except OSError:
        return None
    return Details(
        uid=int(fields["Uid"].split()[1]),
        age_s=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_time),
        state=fields["State"].partition("(")[2].rstrip(")"),
        command=command,
        name=fields["Name"],
    )


def is_starting(process: Process, seen: Details) -> bool:
    """Whether this is an ipsecd that has no lock yet, or waits for one that starts: neither is part of an instance."""
    if process.role is not Role.SUPERVISOR or seen.name == SUPERVISOR_NAME:
        return False
    return seen.name == STARTING_NAME or seen.age_s < LONGEST_START_S


def seen(process: Process) -> Any:
    """A process with the fields of `ipc.status.SeenProcess`; None if it has ended."""
    more = details(process)
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
    more = details(process)
    if more is not None and not is_starting(process, more):
        sentence = f"{process} {what}: {more.user}, {duration(more.age_s)} old: {more.command}"
        yield finding(code, sentence, seen(process))
