"""Other instances: one in the same network namespace owns the kernel objects there, which are not for us to touch."""

import os

from ipsecctl.arguments import DEFAULT_INSTANCE
from ipsecctl.processes import role_in

INSTANCE_OPTION = "--instance"


def neighbour(instance: str) -> str:
    """Another instance that lives in this network namespace, for people; empty if there is none."""
    here = os.stat("/proc/thread-self/ns/net").st_ino
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = [os.fsdecode(part) for part in file.read().split(b"\0")[:-1]]
            other = _instance_in(arguments)
            if other != instance and role_in(arguments, other) and os.stat(f"/proc/{name}/ns/net").st_ino == here:
                return f"{other} (pid {name})"
        except OSError:
            # It has ended meanwhile.
            continue
    return ""


def _instance_in(arguments: list[str]) -> str:
    for position, argument in enumerate(arguments):
        if argument == INSTANCE_OPTION and position + 1 < len(arguments):
            return os.path.abspath(arguments[position + 1])
        if argument.startswith(f"{INSTANCE_OPTION}="):
            return os.path.abspath(argument.partition("=")[2])
    return DEFAULT_INSTANCE
