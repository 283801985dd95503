"""The operator's own SSH connection, and whether a policy would cut it: who locks himself out should know before.

sshd says in SSH_CONNECTION which one it is. sudo may have dropped that, so the processes above this one are looked at
too: an sshd among them holds the connection's socket. Only a connection of this network namespace counts, as the
kernel lists it in /proc/net/tcp and tcp6: another one can't be cut from here.
"""

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipc.types import Action, Direction, IpAddress
from ipsecctl.errors import CommandError

if TYPE_CHECKING:
    from ipsecctl.policy_check import Checked
    from policy_loader.explain import Step

TCP = 6
_ESTABLISHED = "01"
_TABLES = ("/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6")
_MOST_ANCESTORS = 64
REMEDY = "give --confirm SECONDS, to have it undone unless `ipsecctl confirm` follows, or --cut-me-off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A TCP connection, from our side."""

    local: IpAddress
    local_port: int
    remote: IpAddress
    remote_port: int

    def __str__(self) -> str:
        return f"from {self.remote} port {self.remote_port} to {self.local} port {self.local_port}"


class WouldCut(CommandError):
    """What was asked for would cut the operator's own SSH connection."""


def refuse(cut: str, *, allowed: bool) -> None:
    """WouldCut, unless there is nothing to cut (`cut` is empty); where it is `allowed`, a warning on stderr."""
    if cut and not allowed:
        raise WouldCut(f"{cut}\nipsecctl: nothing was changed: {REMEDY}")
    if cut:
        print(f"ipsecctl: warning: {cut}", file=sys.stderr)


def cut_by(
    checked: "Checked",
    path: str,
    own: tuple[Connection, ...],
    *,
    secure: bool,
    live: frozenset[str] = frozenset(),
) -> str:
    """Why the policy of the file `path` would cut one of the connections, in a sentence; empty if it would cut none.

    `secure`: what no rule matches is dropped in any case. `live` are the protect rules that have an SA: a connection
    that one of them is about goes by it already.
    """
    from policy_loader.explain import Packet, decide

    for one in own:
        here, there = (one.local, one.local_port), (one.remote, one.remote_port)
        for direction, source, destination in ((Direction.IN, there, here), (Direction.OUT, here, there)):
            packet = Packet(
                direction=direction,
                source=source[0],
                destination=destination[0],
                protocol=TCP,
                source_port=source[1],
                destination_port=destination[1],
            )
            why = _why_cut(checked, path, decide(checked.policy, packet, secure=secure).deciding, live)
            if why:
                return f"this would cut your own SSH connection {one}: {why}"
    return ""


def cut_by_everything(own: tuple[Connection, ...], why: str) -> str:
    """As `cut_by`, where no policy lets anything pass."""
    return f"this would cut your own SSH connection {own[0]}: {why}" if own else ""


def _why_cut(checked: "Checked", path: str, step: "Step", live: frozenset[str]) -> str:
    deciding = [rule for rule in (*step.possible, step.rule) if rule is not None]
    for rule in deciding:
        named = f'rule "{rule.name}" ({path}:{checked.file.line_of(rule.position)})'
        if rule.action is Action.DISCARD:
            return f"{named} discards it"
        if rule.action is Action.PROTECT and rule.name not in live:
            return f"{named} protects it, and it is in clear now"
    if step.rule is None and step.action is Action.DISCARD:
        return f"no rule of {path} matches it, so it is dropped"
    return ""


def own_connections() -> tuple[Connection, ...]:
    """The SSH connections by which this command was given; none if it was not by SSH."""
    established = dict(_established())
    said = _said_by_sshd()
    found = [one for inode, one in established.items() if one == said or inode in _sockets_of_sshd_above()]
    return tuple(dict.fromkeys(found))


def _said_by_sshd() -> Connection | None:
    """SSH_CONNECTION: the client's address and port, and ours."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    try:
        remote, remote_port, local, local_port = words
        return Connection(
            local=_plain(ipaddress.ip_address(local)),
            local_port=int(local_port),
            remote=_plain(ipaddress.ip_address(remote)),
            remote_port=int(remote_port),
        )
    except ValueError:
        return None


def _sockets_of_sshd_above() -> frozenset[str]:
    """The inodes of all sockets that an sshd above this process holds; empty if there is none, or it can't be seen."""
    pid, inodes = os.getppid(), set[str]()
    for _ in range(_MOST_ANCESTORS):
        if pid <= 1:
            break
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
        except OSError:
            break
        if head.partition("(")[2].startswith("sshd"):
            inodes |= set(_sockets_of(pid))
        pid = int(tail.split()[1])
    return frozenset(inodes)


def _sockets_of(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                kind, _, inode = os.readlink(f"/proc/{pid}/fd/{name}").partition(":")
                if kind == "socket":
                    yield inode.strip("[]")


def _established() -> Iterator[tuple[str, Connection]]:
    """Each established TCP connection of this network namespace, by the inode of its socket (proc(5))."""
    for path in _TABLES:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            for line in file.readlines()[1:]:
                words = line.split()
                if words[3] == _ESTABLISHED:
                    (local, local_port), (remote, remote_port) = _end(words[1]), _end(words[2])
                    yield (
                        words[9],
                        Connection(local=local, local_port=local_port, remote=remote, remote_port=remote_port),
                    )


def _end(text: str) -> tuple[IpAddress, int]:
    """ "0100007F:0016": an address in 32-bit words of the machine's own order, and a port."""
    address, _, port = text.partition(":")
    words = (int(address[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(address), 8))
    return _plain(ipaddress.ip_address(b"".join(words))), int(port, 16)


def _plain(address: IpAddress) -> IpAddress:
    """An IPv4 address that stands in an IPv6 socket, as itself."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
