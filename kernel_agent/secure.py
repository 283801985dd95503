"""`python -m kernel_agent.secure on | off | show`: secure mode of the present network namespace.

In secure mode the kernel drops each packet, in, out or forwarded, IPv4 and IPv6, for which it finds no XFRM policy
(XFRM_MSG_SETDEFAULT of linux/xfrm.h). That is the kernel's own state: it needs no process of ours, and what the
policy allows goes on. The kernel exempts IPv4 on the loopback device; for ::1 and neighbour discovery there are a few
policies of a tag of their own, which come and go with the mode. `show` prints "on" or "off", and all three directions
where they differ.
"""

import errno
import struct
import sys
from dataclasses import replace

from ipc.ownership import SECURE_TAG
from ipc.value import value
from kernel_agent.xfrm import messages, structs
from kernel_agent.xfrm.constants import NETLINK_XFRM, XfrmMessage
from kernel_agent.xfrm.messages import InstalledPolicy
from kernel_agent.xfrm.netlink import Request, RequestSocket
from kernel_agent.xfrm.policies import exempt

BLOCK, ACCEPT = 1, 2
_NO_IPV6 = errno.EAFNOSUPPORT
_DEFAULTS = struct.Struct("=3B")
"""struct xfrm_userpolicy_default { __u8 in, fwd, out; }"""
_WORDS = {BLOCK: "block", ACCEPT: "accept"}


@value
class Defaults:
    """What becomes of a packet for which there is no policy: BLOCK or ACCEPT, by direction."""

    inbound: int
    forwarded: int
    outbound: int

    def __str__(self) -> str:
        if self == SECURE:
            return "on"
        if self == OPEN:
            return "off"
        directions = (("in", self.inbound), ("fwd", self.forwarded), ("out", self.outbound))
        return ", ".join(f"{name} {_WORDS.get(value, value)}" for name, value in directions)


SECURE = Defaults(inbound=BLOCK, forwarded=BLOCK, outbound=BLOCK)
OPEN = Defaults(inbound=ACCEPT, forwarded=ACCEPT, outbound=ACCEPT)


def show(requests: RequestSocket) -> Defaults:
    """What the kernel does now; OSError if it does not say."""
    answer = requests.ask(XfrmMessage.GETDEFAULT, _DEFAULTS.pack(0, 0, 0))
    inbound, forwarded, outbound = _DEFAULTS.unpack_from(answer)
    return Defaults(inbound=inbound, forwarded=forwarded, outbound=outbound)


def enter(requests: RequestSocket) -> None:
    """Enters secure mode, or mends it; OSError if the kernel refuses."""
    policies = _own_policies()
    added = [Request(XfrmMessage.NEWPOLICY, messages.new_policy(one.policy, one.index)) for one in policies]
    for error in requests.transact(added):
        if error is not None and error.errno not in (errno.EEXIST, _NO_IPV6):
            raise error
    _set(requests, SECURE)


def leave(requests: RequestSocket) -> None:
    """Leaves secure mode; harmless outside of it. OSError if the kernel refuses."""
    _set(requests, OPEN)
    for error in requests.transact(
        [Request(XfrmMessage.DELPOLICY, messages.delete_policy(one.policy.key, one.index)) for one in _own_policies()]
    ):
        if error is not None and error.errno not in (errno.ENOENT, _NO_IPV6):
            raise error


def _set(requests: RequestSocket, wanted: Defaults) -> None:
    if show(requests) != wanted:
        body = _DEFAULTS.pack(wanted.inbound, wanted.forwarded, wanted.outbound)
        requests.execute([Request(XfrmMessage.SETDEFAULT, body)])


def _own_policies() -> list[InstalledPolicy]:
    """What is let through in secure mode, with or without a policy of ipsecd.

    ipsecd has policies with the same selectors. `user`, which the kernel compares and has no other use for, lets both
    be there.
    """
    return [
        InstalledPolicy(
            index=SECURE_TAG << 24 | serial << 3 | policy.direction,
            policy=replace(policy, selector=structs.with_user(policy.selector, SECURE_TAG)),
        )
        for serial, policy in enumerate(exempt(), 1)
    ]


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 if it is as asked, 1 if the kernel refuses, 2 if it is not known what is asked."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1 or words[0] not in ("on", "off", "show"):
        print("usage: python -m kernel_agent.secure on | off | show", file=sys.stderr)
        return 2
    try:
        requests = RequestSocket(NETLINK_XFRM)
        try:
            if words[0] == "on":
                enter(requests)
            elif words[0] == "off":
                leave(requests)
            print(show(requests))
        finally:
            requests.close()
    except OSError as error:
        print(f"the kernel's default policies can't be had: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
