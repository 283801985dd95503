"""Who else has the UDP ports of IKE in a network namespace.

A socket is known by its inode. The process behind it is looked for, by psutil, only if there is a stranger's socket at
all: that means to read what every process has open.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from ipsecctl import programs

IKE_PORTS = (500, 4500)


class Holder(NamedTuple):
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
    return tuple(sorted(_holders(sockets, pid), key=lambda holder: (holder.port, holder.pid))) if sockets else ()


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


def _holders(sockets: dict[int, int], pid: int | str) -> set[Holder]:
    if programs.namespace_of(pid) != programs.namespace_of("self"):
        elsewhere = "somebody in that network namespace: ask there"
        return {Holder(port=port, pid=0, name=elsewhere) for port in sockets.values()}
    # Here, not above: a port that nobody else has is the rule.
    import psutil

    from ipsecctl.processes import is_ours

    found = set()
    for connection in psutil.net_connections("udp"):
        port, holder = connection.laddr.port, connection.pid
        if port in sockets.values() and not (holder and is_ours(holder)):
            found.add(Holder(port=port, pid=holder or 0, name=_name(holder) if holder else "nobody that can be seen"))
    return found


def _name(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "a process that has ended"
