"""Differences between what should be and what is. Pure: what to add, to change and to remove, and nothing else."""

from collections.abc import Collection, Iterable, Mapping

from ipc.messages import SaName
from ipc.value import value
from kernel_agent.xfrm.messages import InstalledSa, PolicyEntry
from kernel_agent.xfrm.policies import CARRIES, PRIORITIES_PER_RULE


@value
class PolicyDiff:
    """What leads from the present policies to the wanted ones, by key, in this order.

    At every step a packet that was protected before and will be is protected: what carries protected traffic never
    loses its precedence before all that could take such a packet has found its place behind.
    """

    first: tuple[bytes, ...]
    """What carries protected traffic, where it is new or gains precedence."""
    then: tuple[bytes, ...]
    """All that does not."""
    last: tuple[bytes, ...]
    """What carries protected traffic and yields precedence."""
    remove: tuple[bytes, ...]

    def __bool__(self) -> bool:
        return bool(self.first or self.then or self.last or self.remove)


def policy_diff(wanted: Mapping[bytes, PolicyEntry], present: Mapping[bytes, PolicyEntry]) -> PolicyDiff:
    """What leads from `present`, all of them ours, to `wanted`; both by key."""
    first: list[bytes] = []
    then: list[bytes] = []
    last: list[bytes] = []
    for key, entry in wanted.items():
        old = present.get(key)
        if old is entry or (old is not None and old.does_as(entry)):
            continue
        if entry.priority % PRIORITIES_PER_RULE != CARRIES:
            then.append(key)
        elif old is None or entry.priority <= old.priority:
            first.append(key)
        elif old.priority % PRIORITIES_PER_RULE == CARRIES:
            last.append(key)
        else:
            then.append(key)
    remove = tuple(key for key in present if key not in wanted)
    return PolicyDiff(first=tuple(first), then=tuple(then), last=tuple(last), remove=remove)


def unnamed_sas(named: Collection[SaName], present: Iterable[InstalledSa]) -> tuple[SaName, ...]:
    """The SAs that are installed and that nobody named."""
    return tuple(installed.name for installed in present if installed.name not in named)
