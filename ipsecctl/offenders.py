"""Processes that should not be there, with all that tells who they are: role, pid, user, age, command line."""

import pwd
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import psutil

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
        looked_at = psutil.Process(process.pid)
        with looked_at.oneshot():
            return Details(
                uid=looked_at.uids().effective,
                age_s=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_time),
                state=looked_at.status(),
                command=" ".join(looked_at.cmdline()),
                name=looked_at.name(),
            )
    except psutil.Error:
        return None


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
