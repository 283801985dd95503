"""Who else has the UDP ports of IKE in a network namespace: read from /proc, since nobody has to be asked.

A socket is known by its inode. The process behind it is looked for only if there is a stranger's socket at all: that
means to read what every process has open.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from ipsecctl import processes

IKE_PORTS = (500, 4500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that has a port of IKE; `pid` is 0 if none was found (a socket of the kernel's)."""

    port: int
    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else self.name


def foreign_holders(pid: int | str = "self", ours: int = 0) -> tuple[Holder, ...]:
    """Who has an IKE port in the network namespace of `pid` and is no ipsecd; `ours` is a supervisor's pid, or 0."""
    sockets = _sockets(pid)
    if sockets and ours:
        for inode in _open_sockets(ours):
            sockets.pop(inode, None)
    return tuple(sorted(_holders(sockets), key=lambda holder: (holder.port, holder.pid))) if sockets else ()


def _sockets(pid: int | str) -> dict[int, int]:
    """Inode to port of every UDP socket at an IKE port (proc_net_udp(5))."""
    found: dict[int, int] = {}
    for table in ("udp", "udp6"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                port = int(fields[1].rpartition(":")[2], 16)
                if port in IKE_PORTS:
                    found[int(fields[9])] = port
    return found


def _open_sockets(pid: int) -> Iterator[int]:
    """The inodes of the sockets that a process has open; none if it has ended."""
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{directory}/{name}")
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _holders(sockets: dict[int, int]) -> set[Holder]:
    found: set[Holder] = set()
    left = dict(sockets)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        held = {inode for inode in _open_sockets(pid) if inode in sockets}
        for inode in held:
            left.pop(inode, None)
        if held and not processes.is_ours(pid):
            found |= {Holder(port=sockets[inode], pid=pid, name=_name(pid)) for inode in held}
    return found | {Holder(port=port, pid=0, name="nobody that can be seen") for port in left.values()}


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process that has ended"
