"""Which objects of ours are in the kernel of this network namespace: they are counted, and nothing is changed.

Asked over netlink from here, and by a few lines only: to start a program of the kernel agent's package would take
longer than all else that a status does. What is counted is what `kernel_agent.clean` removes; a test compares.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ipc import default_policies
from ipc.ownership import NFT_TABLE, OWNER_TAG, ROUTE_PROTOCOL

NETLINK_ROUTE, NETLINK_XFRM, NETLINK_NETFILTER = 0, 6, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x001, 0x300
XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY = 0x12, 0x15
RTM_GETROUTE, RTM_GETRULE = 26, 34
NFT_GETTABLE = 10 << 8 | 1
NFPROTO_INET = 1
FRA_PROTOCOL = 21

_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr { __u32 nlmsg_len; __u16 nlmsg_type, nlmsg_flags; __u32 nlmsg_seq, nlmsg_pid; };"""
_REQID_OFFSET = 208
"""In struct xfrm_usersa_info."""
_INDEX_OFFSET = 156
"""In struct xfrm_userpolicy_info."""
_ROUTE_BYTES = 12
"""Of struct rtmsg and struct fib_rule_hdr; rtm_protocol is its sixth byte."""
_POLICY_ID_BYTES = 64
_RECEIVE_BYTES = 65536


class Counted(NamedTuple):
    """What was counted, in words ("3 policies"), and why it was not, empty if it was."""

    lines: tuple[str, ...]
    error: str
    secure: bool = False
    """Whether the kernel drops what no policy allows."""


def count(deadline: float) -> Counted:
    """The objects there are, a line for each kind, by the monotonic `deadline`."""
    try:
        counts = (
            (_tagged(XFRM_MSG_GETSA, b"", _REQID_OFFSET, deadline), "SAs"),
            (_tagged(XFRM_MSG_GETPOLICY, bytes(_POLICY_ID_BYTES), _INDEX_OFFSET, deadline), "policies"),
            (_rules(deadline), "routing rules"),
            (_routes(deadline), "routes"),
            (_tables(deadline), "nftables tables"),
        )
        secure = default_policies.all_block(max(0.001, deadline - time.monotonic()))
    except TimeoutError:
        return Counted(lines=(), error="it took too long")
    except OSError as error:
        return Counted(lines=(), error=error.strerror or str(error))
    return Counted(lines=tuple(f"{number} {kind}" for number, kind in counts if number), error="", secure=secure)


def _tagged(question: int, body: bytes, offset: int, deadline: float) -> int:
    words = (struct.unpack_from("=I", one, offset)[0] for one in _dump(NETLINK_XFRM, question, body, deadline))
    return sum(1 for word in words if word >> 24 == OWNER_TAG)


def _rules(deadline: float) -> int:
    ours = struct.pack("=HHB3x", 5, FRA_PROTOCOL, ROUTE_PROTOCOL)
    rules = _dump(NETLINK_ROUTE, RTM_GETRULE, bytes(_ROUTE_BYTES), deadline)
    return sum(1 for rule in rules if ours in _attributes(rule[_ROUTE_BYTES:]))


def _routes(deadline: float) -> int:
    routes = _dump(NETLINK_ROUTE, RTM_GETROUTE, bytes(_ROUTE_BYTES), deadline)
    return sum(1 for route in routes if route[5] == ROUTE_PROTOCOL)


def _tables(deadline: float) -> int:
    name = NFT_TABLE.encode() + b"\0"
    question = struct.pack("!BBH", NFPROTO_INET, 0, 0) + struct.pack("=HH", 4 + len(name), 1) + name
    try:
        return len(list(_ask(NETLINK_NETFILTER, NFT_GETTABLE, 0, question, deadline)))
    except FileNotFoundError:
        return 0


def _attributes(data: bytes) -> Iterator[bytes]:
    """Each attribute of a message, its header and padding included."""
    while len(data) >= 4:
        length = max(4, (struct.unpack_from("=H", data)[0] + 3) & ~3)
        yield data[:length]
        data = data[length:]


def _dump(protocol: int, kind: int, body: bytes, deadline: float) -> Iterator[bytes]:
    return _ask(protocol, kind, NLM_F_DUMP, body, deadline)


def _ask(protocol: int, kind: int, flags: int, body: bytes, deadline: float) -> Iterator[bytes]:
    """The bodies of all answers to a dump, of the first one to another question; OSError if the kernel refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as kernel:
        padded = body + bytes(-len(body) % 4)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + padded)
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            kernel.settimeout(left_s)
            data = kernel.recv(_RECEIVE_BYTES)
            while data:
                length, answer, _, _, _ = _HEADER.unpack_from(data)
                if length < _HEADER.size:
                    raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
                content, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                number = -int.from_bytes(content[:4], sys.byteorder, signed=True) if answer == NLMSG_ERROR else 0
                if number:
                    raise OSError(number, os.strerror(number))
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return
                yield content
                if not flags:
                    return
