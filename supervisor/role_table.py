"""The roles that a supervisor starts: one row each, in the order of starting; stopping goes the other way."""

from ipc.roles import MODULES, Role, process_name
from ipc.value import value


@value
class RoleRow:
    """What a role needs to run."""

    role: Role
    module: str
    """What `python -m` runs."""
    descriptors: tuple[str, ...]
    """Names of the descriptors it inherits, besides the listeners of the links that it binds."""
    userspace_only: bool
    """Only where user space does ESP."""
    stop_deadline_s: float
    """How long it has for what it must finish at a stop."""
    index: int = 0
    """Which of several processes of the role."""

    @property
    def name(self) -> str:
        """Of the process, on its links and for people."""
        return process_name(self.role, self.index)


ROLE_TABLE: tuple[RoleRow, ...] = (
    RoleRow(  # First up and last down: what the kernel enforces frames the life of all others.
        role=Role.KERNEL_AGENT,
        module=MODULES[Role.KERNEL_AGENT],
        descriptors=(),
        userspace_only=False,
        stop_deadline_s=4.0,
    ),
    RoleRow(
        role=Role.POLICY_LOADER,
        module=MODULES[Role.POLICY_LOADER],
        descriptors=(),
        userspace_only=False,
        stop_deadline_s=1.0,
    ),
    RoleRow(
        role=Role.DATA_PATH,
        module=MODULES[Role.DATA_PATH],
        descriptors=("tun", "esp-v4", "esp-v6", "udp4500-v4", "udp4500-v6", "counters"),
        userspace_only=True,
        stop_deadline_s=1.0,
    ),
    RoleRow(  # Last up: it finds the policy enforced; first down: its DELETEs still go through everything else.
        role=Role.IKE_WORKER,
        module=MODULES[Role.IKE_WORKER],
        descriptors=(
            *("udp500-v4", "udp500-v6", "udp500-strangers-v4", "udp500-strangers-v6"),
            *("udp4500-v4", "udp4500-v6", "udp4500-strangers-v4", "udp4500-strangers-v6"),
            *("route-v4", "route-v6"),
        ),
        userspace_only=False,
        stop_deadline_s=2.0,
    ),
)
