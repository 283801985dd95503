"""What only root can open: UDP 500 and 4500, raw ESP, the TUN device, link listeners. Kept open for life.

A role that is started again inherits the same descriptors, so nothing that was on its way is lost with it, and the
device does not vanish with the process that used it.
"""

import errno
import fcntl
import logging
import os
import socket
import struct

import psutil

from ipc.links import Link, socket_path
from ipc.ownership import OUTER_MARK, TUN_INTERFACE
from ipc.roles import Role, process_name, uid_of
from supervisor import reuseport
from supervisor.bypass import bypass
from supervisor.errors import StartFailed

log = logging.getLogger(__name__)

IKE_PORT = 500
NAT_T_PORT = 4500
FAMILIES = {"v4": socket.AF_INET, "v6": socket.AF_INET6}
IPPROTO_ESP = 50
BUFFER_BYTES = 8 * 1024 * 1024
STRANGERS_BUFFER_BYTES = 512 * 1024
"""Some hundred first messages: in a flood nobody should stand behind more of them than are answered in a moment."""
COUNTERS_BYTES = 64 * 1024 * 1024
"""Sparse: memory is used only where a counter was written."""
LISTEN_BACKLOG = 16
TUN_DEVICE = "/dev/net/tun"

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0
_UDP_ENCAP = 100
_UDP_ENCAP_ESPINUDP = 2
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000


class Descriptors:
    """Everything that children inherit, by the name under which they know it."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def add(self, name: str, descriptor: int) -> None:
        """Owns `descriptor` from now on."""
        if name in self._open:
            raise ValueError(f"descriptor {name} is there already")
        self._open[name] = descriptor

    def add_socket(self, name: str, sock: socket.socket) -> None:
        """Owns the descriptor of `sock` from now on."""
        self.add(name, sock.detach())

    def has(self, name: str) -> bool:
        """Whether there is one of this name."""
        return name in self._open

    def number(self, name: str) -> int:
        """The descriptor of this name."""
        return self._open[name]

    def close_all(self) -> None:
        """Closes all; the TUN device goes with its descriptor."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def name_for(process: str, name: str) -> str:
    """Under which name we keep what the process of this name knows as `name`: each of several has its own."""
    return f"{process}:{name}" if process.startswith(f"{Role.IKE_WORKER.value}-") else name


def open_ike_sockets(descriptors: Descriptors) -> None:
    """UDP 500 and 4500 of the first worker; StartFailed names the process that has a port already."""
    for version, family in FAMILIES.items():
        if not _family_works(family):
            log.warning("this host has no IP%s", version)
            continue
        for port in (IKE_PORT, NAT_T_PORT):
            _probe_port(family, port)
        _open_of_worker(descriptors, Role.IKE_WORKER, version)
    _steer(descriptors, 1, userspace=False)


def open_more_workers(descriptors: Descriptors, workers: int) -> None:
    """The same for the second worker and those after it, of `workers`.

    The place of a socket in its SO_REUSEPORT group is the order in which they are bound: that of a worker's first one
    is `reuseport.ike_index`.
    """
    for index in range(1, workers):
        for version in FAMILIES:
            if descriptors.has(f"udp500-{version}"):
                _open_of_worker(descriptors, process_name(Role.IKE_WORKER, index), version)
    _steer(descriptors, workers, userspace=False)


def _open_of_worker(descriptors: Descriptors, worker: str, version: str) -> None:
    family = FAMILIES[version]
    for port in (IKE_PORT, NAT_T_PORT):
        descriptors.add_socket(name_for(worker, f"udp{port}-{version}"), _outer_udp(family, port))
        strangers = _outer_udp(family, port)
        strangers.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, STRANGERS_BUFFER_BYTES)
        descriptors.add_socket(name_for(worker, f"udp{port}-strangers-{version}"), strangers)
    # Never sends: the worker connects it to learn from which address routing would send to a peer.
    descriptors.add_socket(name_for(worker, f"route-{version}"), _outer_unbound(family))


def _steer(descriptors: Descriptors, workers: int, *, userspace: bool) -> None:
    programs = {IKE_PORT: reuseport.port_500(workers), NAT_T_PORT: reuseport.port_4500(workers, userspace=userspace)}
    for version, family in FAMILIES.items():
        for port, program in programs.items():
            name = f"udp{port}-{version}"
            if descriptors.has(name):
                with socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(descriptors.number(name))) as sock:
                    reuseport.steer(sock, program)


def open_userspace(descriptors: Descriptors, workers: int = 1) -> None:
    """What the user-space data path needs, under names that start with "data:" where the worker has one like it.

    The sockets of all workers are there: those of the data path stand behind them in their group.
    """
    descriptors.add("tun", _open_tun())
    descriptors.add("counters", _open_counters())
    for version, family in FAMILIES.items():
        if not descriptors.has(f"udp4500-{version}"):
            continue
        descriptors.add_socket(f"esp-{version}", _outer_esp(family))
        descriptors.add_socket(f"data:udp4500-{version}", _outer_udp(family, NAT_T_PORT))
    _steer(descriptors, workers, userspace=True)


def take_kernel_esp(descriptors: Descriptors) -> None:
    """Lets the kernel take ESP out of UDP 4500 (RFC 3948)."""
    for version, family in FAMILIES.items():
        if descriptors.has(f"udp4500-{version}"):
            with socket.socket(
                family, socket.SOCK_DGRAM, fileno=os.dup(descriptors.number(f"udp4500-{version}"))
            ) as sock:
                sock.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, _UDP_ENCAP_ESPINUDP)


def open_listener(run_directory: str, link: Link) -> socket.socket:
    """The listener of a link between two children: only the connector's user may connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(socket_path(run_directory, link))
        own_link_socket(run_directory, link)
        listener.listen(LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def own_link_socket(run_directory: str, link: Link) -> None:
    """Gives the socket file of `link` to its connector's user, and to nobody else."""
    uid = uid_of(link.connector)
    path = socket_path(run_directory, link)
    os.chmod(path, 0o600)
    os.chown(path, uid, uid)


def _family_works(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _probe_port(family: int, port: int) -> None:
    """Looks that nobody has `port`: our own bind will share it, so it could succeed beside another's."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind(sock, port)


def _outer_udp(family: int, port: int) -> socket.socket:
    """One of the sockets that share `port`."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _set_outer_options(sock)
        _bind(sock, port)
    except BaseException:
        sock.close()
        raise
    return sock


def _outer_unbound(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    _set_outer_options(sock)
    return sock


def _outer_esp(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, IPPROTO_ESP)
    _set_outer_options(sock)
    return sock


def _set_outer_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OUTER_MARK)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, BUFFER_BYTES)
    # No DF on what we send: a large IKE message may be cut on its way.
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    bypass(sock)


def _bind(sock: socket.socket, port: int) -> None:
    try:
        sock.bind(("", port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartFailed(f"UDP port {port} is held by {_port_holder(port)}") from error
        raise StartFailed(f"UDP port {port}: {error.strerror}") from error


def _port_holder(port: int) -> str:
    for connection in psutil.net_connections("udp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                break
    return "another process"


def _open_tun() -> int:
    try:
        descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise StartFailed(f"{TUN_DEVICE}: {error.strerror}; the user-space data path needs the tun module") from error
    request = struct.pack("16sH22x", TUN_INTERFACE.encode(), _IFF_TUN | _IFF_NO_PI)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError as error:
        os.close(descriptor)
        reason = "another process has it" if error.errno == errno.EBUSY else error.strerror
        raise StartFailed(f"TUN interface {TUN_INTERFACE}: {reason}") from error
    return descriptor


def _open_counters() -> int:
    """Memory that outlives the data path: its sequence numbers go on where they were."""
    descriptor = os.memfd_create("ipsecd-counters", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, COUNTERS_BYTES)
    return descriptor
