"""The role data_path: ESP in user space, for kernels that have none. Started by the supervisor, ruled by the agent.

After a start it asks for the policy (NeedPolicy) and takes no packet before the agent has given it all of that and the
SAs behind it: until then packets wait in the TUN device and the sockets, which outlive this process.
"""

import logging
import time
from collections.abc import Callable

from ipc import messages as m
from ipc.links import AGENT_DATA_PATH
from ipc.loop import Timer
from ipc.process import RoleProcess
from ipc.roles import Role
from kernel_agent.userspace.engine import Engine
from kernel_agent.userspace.spd import PolicyRefused

log = logging.getLogger(__name__)

SETTLE_S = 0.1
"""The agent has told all when for so long it has told no more ..."""
SETTLE_AT_MOST_S = 2.0
"""... or this long after the policy."""


class DataPath:
    """The engine with its links."""

    def __init__(self, process: RoleProcess) -> None:
        self._process = process
        self._engine = Engine(process.loop, process.descriptors, self._notify)
        self._started = False
        self._settling: Timer | None = None
        self._settle_at_most = float("inf")
        process.open_supervisor_link({}, on_stop=self._on_stop)
        self._agent = process.open_link(
            AGENT_DATA_PATH,
            {
                m.BeginPolicy: self._on_begin_policy,
                m.AddPolicy: self._on_add_policy,
                m.CommitPolicy: self._on_commit_policy,
                m.PlaceSa: self._on_place_sa,
                m.DeleteSa: self._on_delete_sa,
                m.QuerySa: self._on_query_sa,
            },
        )
        self._notify(m.NeedPolicy())
        process.say_hello()

    def _notify(self, message: object) -> None:
        self._agent.try_send(message)

    def _on_begin_policy(self, message: m.BeginPolicy, _peer: bytes) -> None:
        self._engine.processor.begin_policy(message)

    def _on_add_policy(self, message: m.AddPolicy, _peer: bytes) -> None:
        self._try_policy(lambda: self._engine.processor.add_policy(message))

    def _on_commit_policy(self, message: m.CommitPolicy, _peer: bytes) -> None:
        self._try_policy(lambda: self._notify(self._engine.processor.commit_policy(message)))
        self._settle_at_most = min(self._settle_at_most, time.monotonic() + SETTLE_AT_MOST_S)
        self._settle()

    def _try_policy(self, step: Callable[[], None]) -> None:
        try:
            step()
        except PolicyRefused as error:
            log.warning("%s: asking for it again", error)
            self._notify(m.NeedPolicy())

    def _on_place_sa(self, message: m.PlaceSa, _peer: bytes) -> None:
        answer = self._engine.processor.place_sas(message)
        if isinstance(answer, m.SaRefused):
            log.warning("SAs refused: %s", answer.reason)
        self._notify(answer)
        self._settle()

    def _on_delete_sa(self, message: m.DeleteSa, _peer: bytes) -> None:
        self._notify(self._engine.processor.delete_sas(message))

    def _on_query_sa(self, message: m.QuerySa, _peer: bytes) -> None:
        self._notify(self._engine.processor.usage(message))

    def _settle(self) -> None:
        if self._started or self._settle_at_most == float("inf"):
            return
        if self._settling is not None:
            self._settling.cancel()
        when = min(time.monotonic() + SETTLE_S, self._settle_at_most)
        self._settling = self._process.loop.call_at(when, self._start)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._engine.start()

    def _on_stop(self, _deadline_s: float) -> None:
        self._process.finish(self._engine.summary())


def main() -> None:
    """Runs the role."""
    process = RoleProcess.start(Role.DATA_PATH)
    DataPath(process)
    process.run()


if __name__ == "__main__":
    main()
