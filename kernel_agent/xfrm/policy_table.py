"""The kernel's policy table: our policies read, and changed all or nothing."""

import errno
from collections import Counter
from collections.abc import Mapping

from ipc.types import Direction
from kernel_agent.data_path import DataPathError
from kernel_agent.reconcile import PolicyDiff, policy_diff
from kernel_agent.xfrm import messages
from kernel_agent.xfrm.constants import SpdAttribute, XfrmMessage
from kernel_agent.xfrm.messages import InstalledPolicy, Policy
from kernel_agent.xfrm.netlink import NetlinkError, Request, RequestSocket
from kernel_agent.xfrm.structs import unpack_selector

THRESHOLDS_FROM_POLICIES = 1000
"""Below this many policies the kernel's own hash thresholds are good enough."""


class PolicyTable:
    """The tagged policies of one network namespace."""

    def __init__(self, requests: RequestSocket) -> None:
        self._requests = requests
        self._thresholds: dict[int, tuple[int, int]] = {}

    def present(self) -> list[InstalledPolicy]:
        """All policies that carry our tag."""
        found = (
            messages.tagged_policy(answer.body) for answer in self._requests.dump(XfrmMessage.GETPOLICY, bytes(64))
        )
        return [installed for installed in found if installed is not None]

    def install(self, wanted: Mapping[bytes, Policy]) -> None:
        """Makes `wanted` (by key) our policies, touching only what differs. DataPathError, and nothing has changed."""
        before = self.present()
        diff = policy_diff(wanted, before)
        if not diff:
            return
        self._set_thresholds(wanted)
        try:
            self._apply(diff, before)
        except DataPathError:
            self._undo(before)
            raise

    def remove_all(self) -> int:
        """Removes every policy of ours; returns how many there were."""
        present = self.present()
        self._apply(PolicyDiff(add=(), change=(), remove=tuple(present)), present)
        return len(present)

    def _apply(self, diff: PolicyDiff, present: list[InstalledPolicy]) -> None:
        taken = {messages.serial_of(installed.index) for installed in present}
        indexes = {installed.policy.key: installed.index for installed in present}
        serials = (serial for serial in range(1, messages.MAX_SERIAL + 1) if serial not in taken)
        requests: list[Request] = []
        try:
            for policy in diff.add:
                index = messages.policy_index(next(serials), policy.direction)
                requests.append(Request(XfrmMessage.NEWPOLICY, messages.new_policy(policy, index)))
        except StopIteration:
            raise DataPathError(f"more than {messages.MAX_SERIAL} XFRM policies are needed") from None
        for policy in diff.change:
            body = messages.new_policy(policy, indexes[policy.key])
            requests.append(Request(XfrmMessage.UPDPOLICY, body))
        requests += [Request(XfrmMessage.DELPOLICY, messages.delete_policy(installed)) for installed in diff.remove]
        subjects = [*diff.add, *diff.change, *(installed.policy for installed in diff.remove)]
        for request, policy, error in zip(requests, subjects, self._requests.transact(requests), strict=True):
            if error is None or (request.kind == XfrmMessage.DELPOLICY and error.errno == errno.ENOENT):
                continue
            raise DataPathError(_why(policy, error)) from error

    def _undo(self, before: list[InstalledPolicy]) -> None:
        """Back to `before`, as far as the kernel lets us."""
        now = self.present()
        self._apply(policy_diff({installed.policy.key: installed.policy for installed in before}, now), now)

    def _set_thresholds(self, wanted: Mapping[bytes, Policy]) -> None:
        """Has the kernel hash by the prefix lengths that most policies have: else it searches a list of them all."""
        families: dict[int, Counter[tuple[int, int]]] = {}
        for policy in wanted.values():
            selector = unpack_selector(policy.selector)
            family = selector.source.address.version
            ends = (selector.source.length, selector.destination.length)
            if policy.direction != Direction.OUT:
                ends = (ends[1], ends[0])
            families.setdefault(family, Counter())[ends] += 1
        for version, lengths in families.items():
            common = lengths.most_common(1)[0][0]
            if lengths.total() < THRESHOLDS_FROM_POLICIES or self._thresholds.get(version) == common:
                continue
            attribute = SpdAttribute.IPV4_HTHRESH if version == 4 else SpdAttribute.IPV6_HTHRESH
            body = messages.hash_thresholds(attribute, *common)
            self._requests.execute([Request(XfrmMessage.NEWSPDINFO, body)])
            self._thresholds[version] = common


def _why(policy: Policy, error: NetlinkError) -> str:
    if error.errno == errno.EEXIST:
        return f"a policy that is not ours is in the way: {policy}"
    return f"the kernel refused the policy {policy}: {error.strerror}"
