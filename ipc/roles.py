"""The roles of ipsecd: their names, their users, and how one process of a role is told from another."""

import enum
import pwd
import sys


class Role(enum.StrEnum):
    """Every program that speaks on a link. The value is the module that `python -m` runs."""

    SUPERVISOR = "supervisor"
    KERNEL_AGENT = "kernel_agent"
    POLICY_LOADER = "policy_loader"
    IKE_WORKER = "ike_worker"
    DATA_PATH = "data_path"
    IPSECCTL = "ipsecctl"


MODULES = {
    Role.SUPERVISOR: "supervisor",
    Role.KERNEL_AGENT: "kernel_agent",
    Role.POLICY_LOADER: "policy_loader",
    Role.IKE_WORKER: "ike_worker",
    Role.DATA_PATH: "kernel_agent.userspace",
}
"""What `python -m` starts for each role."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules with this Python; -P: nothing is imported from the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


SUPERVISOR_NAME = "ipsecd"
"""What /proc/PID/comm says of a supervisor, from when it has the lock on."""
STARTING_NAME = "ipsecd-start"
"""What it says of a process that is about to become one, and of the one that waits for it: neither is an instance."""

USER_NAMES = {
    Role.IKE_WORKER: "ipsec-ike",
    Role.KERNEL_AGENT: "ipsec-agent",
    Role.POLICY_LOADER: "ipsec-policy",
    Role.DATA_PATH: "ipsec-data",
}

# In the range that systemd and Debian leave unused (60578-61183): a fresh machine needs no user management.
FALLBACK_UIDS = {
    Role.IKE_WORKER: 60701,
    Role.KERNEL_AGENT: 60702,
    Role.POLICY_LOADER: 60703,
    Role.DATA_PATH: 60704,
}


MAX_WORKERS = 16
"""How many processes the role ike_worker may have; the others have one each."""
SPI_STEER_BYTE = 7
"""The byte of an IKE SPI of ours that says which worker has the IKE SA: its value modulo the number of workers."""


def process_name(role: Role, index: int = 0) -> str:
    """What process `index` of a role is called, on its links and by people: ike_worker, ike_worker-1, ..."""
    return f"{role.value}-{index}" if index else role.value


def name_of(routing_id: bytes) -> str:
    """The name of the process with this routing id; empty if it is nobody's that there could be several of."""
    text = routing_id[:64].decode("ascii", "replace")
    return text if text in _WORKER_NAMES else ""


_WORKER_NAMES = frozenset(process_name(Role.IKE_WORKER, index) for index in range(MAX_WORKERS))


def uid_of(role: Role) -> int:
    """The uid (and gid) that `role` runs as: the named user's if it exists, else the fixed numeric one."""
    if role in (Role.SUPERVISOR, Role.IPSECCTL):
        return 0
    try:
        return pwd.getpwnam(USER_NAMES[role]).pw_uid
    except KeyError:
        return FALLBACK_UIDS[role]
