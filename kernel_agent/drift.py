"""Whether the kernel's policies are still those that were installed: another program may delete or change them.

Each look asks the kernel only how many there are. All of them are read where that number has changed, and now and
then in any case, unless there are so many that packets would have to wait for it.
"""

import struct
from collections.abc import Callable

from kernel_agent.xfrm.constants import SpdAttribute, XfrmMessage
from kernel_agent.xfrm.netlink import RequestSocket
from kernel_agent.xfrm.policies import PolicyPlan
from kernel_agent.xfrm.policy_table import PolicyTable
from kernel_agent.xfrm.structs import unpack_attributes

LOOK_EVERY_S = 10.0
READ_EVERY_LOOKS = 30
MOST_READ_UNASKED = 50_000
"""Policies; reading so many takes a quarter of a second or so."""
_INFO = struct.Struct("=6I")
"""struct xfrmu_spdinfo { __u32 incnt, outcnt, fwdcnt, inscnt, outscnt, fwdscnt; }: the latter three are sockets'."""


class DriftWatch:
    """The policies of one table."""

    def __init__(self, requests: RequestSocket, table: PolicyTable) -> None:
        self._requests = requests
        self._table = table
        self._count = 0
        self._looks = 0

    def settle(self) -> None:
        """What is there now has just been installed."""
        self._count = self._present_count()
        self._looks = 0

    def look(self, plan: Callable[[], PolicyPlan]) -> tuple[str, ...]:
        """How the policies differ from the plan that was installed, in words; empty if no difference was seen.

        OSError if the kernel does not say.
        """
        count = self._present_count()
        self._looks += 1
        unasked = self._looks >= READ_EVERY_LOOKS and count <= MOST_READ_UNASKED
        if count == self._count and not unasked:
            return ()
        self._count, self._looks = count, 0
        return self._table.differences(plan())

    def _present_count(self) -> int:
        answer = self._requests.ask(XfrmMessage.GETSPDINFO, bytes(4))
        for attribute in unpack_attributes(answer, 4):
            if attribute.kind == SpdAttribute.INFO:
                return sum(_INFO.unpack_from(attribute.value)[:3])
        return 0
