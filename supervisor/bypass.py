"""Per-socket XFRM policies that let IKE and ESP through whatever the host enforces (xfrm_user.h).

`setsockopt(IP_XFRM_POLICY)` takes a `struct xfrm_userpolicy_info` with an empty selector: everything this socket sends
or receives. It needs CAP_NET_ADMIN, so it is done before the descriptor is handed over.
"""

import socket
import struct

from ipc.types import Direction

IP_XFRM_POLICY = 17
IPV6_XFRM_POLICY = 35
XFRM_POLICY_ALLOW = 0

_SELECTOR = struct.Struct("=16s16sHHHHHBBBxxxiI")
_LIFETIME_LIMITS = struct.pack("=8Q", *[2**64 - 1] * 4, 0, 0, 0, 0)
_LIFETIME_CURRENT = bytes(32)
_TAIL = struct.Struct("=IIBBBBxxxx")


def bypass_policy(family: int, direction: Direction) -> bytes:
    """The 168 bytes of a policy that allows everything of `family` in `direction` without IPsec."""
    any_address = bytes(16)
    selector = _SELECTOR.pack(any_address, any_address, 0, 0, 0, 0, family, 0, 0, 0, 0, 0)
    tail = _TAIL.pack(0, 0, direction, XFRM_POLICY_ALLOW, 0, 0)
    return selector + _LIFETIME_LIMITS + _LIFETIME_CURRENT + tail


def bypass(sock: socket.socket) -> None:
    """Takes `sock` out of IPsec in both directions; OSError without CAP_NET_ADMIN."""
    six = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY) if six else (socket.IPPROTO_IP, IP_XFRM_POLICY)
    for direction in (Direction.IN, Direction.OUT):
        sock.setsockopt(level, option, bypass_policy(sock.family, direction))
