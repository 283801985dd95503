"""`python -m kernel_agent.tagged`: counts the objects of ipsecd in the present network namespace, and changes nothing.

One line for each kind that is there: COUNT KIND. What it counts is what `kernel_agent.clean` removes; it looks at the
tags alone, so that it takes a tenth of the time. Secure mode, which stays when ipsecd stops, is a line of its own.
"""

import errno
import struct
import sys
from dataclasses import dataclass

from ipc.ownership import NFT_TABLE, OWNER_TAG, ROUTE_PROTOCOL
from kernel_agent.xfrm.constants import NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM, XfrmMessage
from kernel_agent.xfrm.netlink import NetlinkError, RequestSocket
from kernel_agent.xfrm.structs import pack_attribute, unpack_attributes

REQID_OFFSET = 208
"""In struct xfrm_usersa_info."""
INDEX_OFFSET = 156
"""In struct xfrm_userpolicy_info."""
ALL_BLOCKED = b"\1\1\1"
"""struct xfrm_userpolicy_default: XFRM_USERPOLICY_BLOCK for in, fwd and out."""
SECURE_MODE = "secure mode"
_GETROUTE, _GETRULE = 26, 34
_GETTABLE = 10 << 8 | 1
_NFPROTO_INET = 1
_FRA_PROTOCOL = 21
_HEADER_BYTES = 12
"""Of struct rtmsg and struct fib_rule_hdr; rtm_protocol is its sixth byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """How many objects there are of one kind."""

    kind: str
    count: int


def count_everything() -> tuple[Tagged, ...]:
    """The kinds of which there is any; OSError if the kernel refuses."""
    xfrm, route, netfilter = (RequestSocket(one) for one in (NETLINK_XFRM, NETLINK_ROUTE, NETLINK_NETFILTER))
    try:
        counts = (
            Tagged(kind="SAs", count=_tagged(xfrm, XfrmMessage.GETSA, b"", REQID_OFFSET)),
            Tagged(kind="policies", count=_tagged(xfrm, XfrmMessage.GETPOLICY, bytes(64), INDEX_OFFSET)),
            Tagged(kind="routing rules", count=_rules(route)),
            Tagged(kind="routes", count=_routes(route)),
            Tagged(kind="nftables tables", count=_tables(netfilter)),
        )
    finally:
        for opened in (xfrm, route, netfilter):
            opened.close()
    return tuple(one for one in counts if one.count)


def in_secure_mode() -> bool:
    """Whether the kernel drops what no policy allows; not in a kernel that has no such mode."""
    xfrm = RequestSocket(NETLINK_XFRM)
    try:
        return xfrm.ask(XfrmMessage.GETDEFAULT, bytes(3))[:3] == ALL_BLOCKED
    except NetlinkError:
        return False
    finally:
        xfrm.close()


def _tagged(xfrm: RequestSocket, question: int, body: bytes, offset: int) -> int:
    words = (struct.unpack_from("=I", answer.body, offset)[0] for answer in xfrm.dump(question, body))
    return sum(1 for word in words if word >> 24 == OWNER_TAG)


def _rules(route: RequestSocket) -> int:
    return sum(
        1
        for answer in route.dump(_GETRULE, bytes(_HEADER_BYTES))
        for attribute in unpack_attributes(answer.body, _HEADER_BYTES)
        if attribute.kind == _FRA_PROTOCOL and attribute.value == bytes([ROUTE_PROTOCOL])
    )


def _routes(route: RequestSocket) -> int:
    return sum(1 for answer in route.dump(_GETROUTE, bytes(_HEADER_BYTES)) if answer.body[5] == ROUTE_PROTOCOL)


def _tables(netfilter: RequestSocket) -> int:
    question = struct.pack("!BBH", _NFPROTO_INET, 0, 0) + pack_attribute(1, NFT_TABLE.encode() + b"\0")
    try:
        netfilter.ask(_GETTABLE, question)
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return 0
        raise
    return 1


def main() -> int:
    """The command."""
    try:
        for one in count_everything():
            print(one.count, one.kind)
        if in_secure_mode():
            print(SECURE_MODE)
    except OSError as error:
        print(f"cannot look: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
