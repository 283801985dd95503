"""Whether this kernel does ESP: tried in a network namespace of its own, which vanishes with its last socket."""

import ctypes
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ipc.algorithms import AES128GCM16, IntegrityId
from ipc.messages import Sa
from ipc.types import Direction, Mode, Secret
from ipc.value import value
from kernel_agent.xfrm.constants import NETLINK_ROUTE, NETLINK_XFRM, XfrmMessage
from kernel_agent.xfrm.messages import new_sa
from kernel_agent.xfrm.netlink import NetlinkError, Request, RequestSocket

_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


@value
class KernelEsp:
    """What was found. `detail` says why there is none."""

    present: bool
    detail: str


@value
class ScratchSockets:
    """Netlink in a namespace that holds nothing else and vanishes with them."""

    xfrm: RequestSocket
    route: RequestSocket


@contextmanager
def scratch_namespace() -> Iterator[None]:
    """Within it, this thread is in a new network namespace. Needs root. Sockets made there keep the namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _libc.unshare(_CLONE_NEWNET))
        try:
            yield
        finally:
            _call("setns", _libc.setns(home, _CLONE_NEWNET))
    finally:
        os.close(home)


def scratch_sockets() -> ScratchSockets:
    """For the life of the process: what a policy is tried with. Needs root, and no namespace is left behind."""
    with scratch_namespace():
        return ScratchSockets(xfrm=RequestSocket(NETLINK_XFRM), route=RequestSocket(NETLINK_ROUTE))


def probe_kernel_esp() -> KernelEsp:
    """Adds an SA where it harms nobody. OSError if there can be no scratch namespace."""
    try:
        with scratch_namespace():
            requests = RequestSocket(NETLINK_XFRM)
        try:
            requests.execute([Request(XfrmMessage.NEWSA, new_sa(PROBE_SA))])
        finally:
            requests.close()
    except NetlinkError as error:
        return KernelEsp(present=False, detail=f"the kernel takes no ESP SA: {error.strerror}")
    return KernelEsp(present=True, detail="")


PROBE_SA = Sa(
    rule_id=1,
    direction=Direction.IN,
    spi=0x1000,
    source=ipaddress.IPv4Address("192.0.2.1"),
    destination=ipaddress.IPv4Address("192.0.2.2"),
    mode=Mode.TUNNEL,
    encapsulation=None,
    cipher=AES128GCM16,
    integrity=IntegrityId.NONE,
    encryption_key=Secret(bytes(range(20))),
    integrity_key=Secret(b""),
    esn=True,
    replay_window_packets=64,
    local=(),
    remote=(),
    soft_lifetime_s=0.0,
    hard_lifetime_s=0.0,
    acquire_id=0,
)


def _call(name: str, result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
