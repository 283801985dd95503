"""Differences between what should be and what is. Pure: what to add, to change and to remove, and nothing else."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ipc.messages import SaName
from kernel_agent.xfrm.messages import InstalledPolicy, InstalledSa, Policy

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDiff:
    """Operations that lead from the present policies to the wanted ones."""

    add: tuple[Policy, ...]
    change: tuple[Policy, ...]
    """Those whose key stays: priority, action or template differ."""
    remove: tuple[InstalledPolicy, ...]

    def __bool__(self) -> bool:
        return bool(self.add or self.change or self.remove)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDiff(Generic[T]):
    """What to add to a set and what to take from it."""

    add: tuple[T, ...]
    remove: tuple[T, ...]

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def policy_diff(wanted: Mapping[bytes, Policy], present: Iterable[InstalledPolicy]) -> PolicyDiff:
    """What leads from `present`, all of them ours, to `wanted`, which is by key."""
    change: list[Policy] = []
    remove: list[InstalledPolicy] = []
    kept: set[bytes] = set()
    for installed in present:
        key = installed.policy.key
        policy = wanted.get(key)
        if policy is None:
            remove.append(installed)
            continue
        kept.add(key)
        if policy != installed.policy:
            change.append(policy)
    add = tuple(policy for key, policy in wanted.items() if key not in kept)
    return PolicyDiff(add=add, change=tuple(change), remove=tuple(remove))


def set_diff(wanted: Collection[T], present: Collection[T]) -> SetDiff[T]:
    """What leads from `present` to `wanted`, in the order of each."""
    return SetDiff(
        add=tuple(item for item in dict.fromkeys(wanted) if item not in present),
        remove=tuple(item for item in present if item not in wanted),
    )


def unnamed_sas(named: Collection[SaName], present: Iterable[InstalledSa]) -> tuple[SaName, ...]:
    """The SAs that are installed and that nobody named."""
    return tuple(installed.name for installed in present if installed.name not in named)
