"""Who does ESP: what the policy wishes, what this kernel can do, and what the agent uses."""

import logging
from collections.abc import Callable

from ipc import messages as m
from ipc.ownership import TUN_INTERFACE
from ipc.types import DataPathKind
from supervisor.errors import StartFailed

log = logging.getLogger(__name__)


class DataPathKeeper:
    """The data path of this instance. `send` speaks to the agent, and says whether it could."""

    def __init__(self, send: Callable[[object], bool]) -> None:
        self.capability: m.AgentReady | None = None
        """What the present agent found; None while there is none."""
        self.kind: DataPathKind | None = None
        """As chosen, for the life of the instance."""
        self.why = ""
        self.in_use = False
        """The present agent has it."""
        self.failure = ""
        self.ike_workers = 1
        self.logs_unmatched = False
        """Packets that no rule matches are logged."""
        self._send = send

    def choose(self, wish: DataPathKind) -> DataPathKind:
        """Settles the data path; StartFailed if the wish can't be fulfilled. The agent must be ready."""
        if self.capability is None:
            raise StartFailed("the kernel agent is not ready")
        esp, detail = self.capability.kernel_esp, self.capability.detail
        if wish is DataPathKind.KERNEL and not esp:
            raise StartFailed(f'the policy says data_path = "kernel", but this kernel has no ESP: {detail}')
        if wish is not DataPathKind.AUTO:
            self.kind, self.why = wish, "as the policy says"
        elif esp:
            self.kind, self.why = DataPathKind.KERNEL, "auto: this kernel has ESP"
        else:
            self.kind, self.why = DataPathKind.USERSPACE, f"auto: this kernel has no ESP: {detail}"
        return self.kind

    def use(self) -> None:
        """Tells the agent to use what was chosen."""
        if self.kind is not None:
            self.failure = ""
            interface = TUN_INTERFACE if self.kind is DataPathKind.USERSPACE else ""
            self._send(m.UseDataPath(kind=self.kind, tun_interface=interface, ike_workers=self.ike_workers))

    def agent_went(self) -> None:
        """The agent is gone; what it put into the kernel goes on."""
        self.capability = None
        self.in_use = False

    def on_agent_ready(self, message: m.AgentReady) -> None:
        """An agent is there: the first one waits for the policy, a later one goes on."""
        self.capability = message
        self.use()

    def on_ready(self, message: m.DataPathReady) -> None:
        """The agent takes policies now."""
        self.in_use = message.kind is self.kind
        self._send(m.LogUnmatched(on=self.logs_unmatched))

    def log_unmatched(self, on: bool) -> None:
        """Has packets that no rule matches logged from now on, or not any more."""
        self.logs_unmatched = on
        if self.in_use:
            self._send(m.LogUnmatched(on=on))

    def on_failed(self, message: m.DataPathFailed) -> None:
        """The agent can't."""
        self.failure = message.reason
        log.error("the kernel agent can't use the data path: %s", message.reason)
