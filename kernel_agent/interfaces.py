"""The interfaces that rules name, by their index: they must be there, and their index must fit into the packet mark."""

import socket
from collections.abc import Iterable

from ipc.messages import KernelRule
from ipc.ownership import MOST_INTERFACE_INDEX
from kernel_agent.data_path import DataPathError


def indexes(rules: Iterable[KernelRule]) -> dict[str, int]:
    """The index of each interface that a rule names; DataPathError with the rule and the interface that is missing."""
    wanted = {rule.interface: rule.name for rule in rules if rule.interface}
    if not wanted:
        return {}
    present = {name: index for index, name in socket.if_nameindex()}
    for name, rule in wanted.items():
        if name not in present:
            there = ", ".join(sorted(present))
            raise DataPathError(f"rule {rule}: interface {name} does not exist; there are: {there}")
        if present[name] > MOST_INTERFACE_INDEX:
            raise DataPathError(
                f"rule {rule}: interface {name} has index {present[name]}; rules can name those up to "
                f"{MOST_INTERFACE_INDEX}"
            )
    return {name: present[name] for name in wanted}
