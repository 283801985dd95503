"""`python -m kernel_agent.try_policy KIND`: whether the kernel would take a policy, tried in a namespace of its own.

The policy comes on stdin as the messages that the loader sends, each behind its length in four bytes, big-endian. KIND
is auto, kernel or userspace. What is wrong is printed, and the exit code is then 1. Needs root; changes nothing.
"""

import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

from ipc import codec
from ipc import messages as m
from ipc.errors import MessageRefused
from ipc.types import DataPathKind
from kernel_agent import guard, interfaces
from kernel_agent.data_path import DataPathError, SecurityPolicy
from kernel_agent.policy_batch import PolicyBatch
from kernel_agent.probe import probe_kernel_esp, scratch_sockets
from kernel_agent.routes import plan
from kernel_agent.routing_table import RoutingTable
from kernel_agent.xfrm.constants import NETLINK_ROUTE, NETLINK_XFRM
from kernel_agent.xfrm.netlink import RequestSocket
from kernel_agent.xfrm.policies import kernel_policies, userspace_policies
from kernel_agent.xfrm.policy_table import PolicyTable
from kernel_agent.xfrm.xfrm_path import try_sas

_LENGTH = struct.Struct(">I")
_ANY_INTERFACE = 1
"""Stands for the TUN, which is not there."""


def try_policy(policy: SecurityPolicy, kind: DataPathKind) -> None:
    """DataPathError if the kernel would not take it, OSError if it can't be asked."""
    esp = probe_kernel_esp()
    if kind is DataPathKind.KERNEL and not esp.present:
        raise DataPathError(esp.detail)
    named = interfaces.indexes(policy.rules)
    scratch = scratch_sockets()
    xfrm, route = RequestSocket(NETLINK_XFRM), RequestSocket(NETLINK_ROUTE)
    try:
        if esp.present and kind is not DataPathKind.USERSPACE:
            PolicyTable(xfrm).check(kernel_policies(policy.rules, named), PolicyTable(scratch.xfrm))
            try_sas(scratch.xfrm, policy.manual_sas)
            return
        table = RoutingTable(route)
        routing = plan(policy.rules, table.addresses(), _ANY_INTERFACE)
        policies = userspace_policies(policy.rules, _ANY_INTERFACE, named)
        PolicyTable(xfrm).check(policies, PolicyTable(scratch.xfrm))
        table.check(routing, RoutingTable(scratch.route))
    finally:
        for opened in (xfrm, route, scratch.xfrm, scratch.route):
            opened.close()


def read_policy(stream: BinaryIO) -> SecurityPolicy:
    """The policy in these messages; guard.Refused or MessageRefused if they make none."""
    batch: PolicyBatch | None = None
    for message in _messages(stream):
        if isinstance(message, m.BeginPolicy):
            batch = PolicyBatch(message)
        elif batch is None:
            raise guard.Refused("a policy begins with BeginPolicy")
        elif isinstance(message, m.AddPolicy):
            batch.add(message)
        elif isinstance(message, m.AddManualSas):
            batch.add_manual_sas(message)
        elif isinstance(message, m.CommitPolicy):
            return batch.commit(message)
    raise guard.Refused("the policy has no end")


def _messages(stream: BinaryIO) -> Iterator[object]:
    while header := stream.read(_LENGTH.size):
        yield codec.decode(stream.read(int.from_bytes(header, "big")))


def main() -> int:
    """The command."""
    words = {kind.name.lower(): kind for kind in DataPathKind}
    if len(sys.argv) != 2 or sys.argv[1] not in words:
        print(f"usage: python -m kernel_agent.try_policy {' | '.join(words)}", file=sys.stderr)
        return 2
    try:
        try_policy(read_policy(sys.stdin.buffer), words[sys.argv[1]])
    except (guard.Refused, MessageRefused, DataPathError) as error:
        print(error)
        return 1
    except OSError as error:
        print(f"the kernel can't be asked: {error.strerror}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
