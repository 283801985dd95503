"""The stop of an instance: the worker first, that its DELETEs go out; the agent last, which clears the kernel.

Every step looks for what there is to end or remove, so the list is right after a start that failed half-way too.
"""

import itertools
import logging
import signal

from ipc import messages as m
from ipc.patience import for_policy, patient
from ipc.roles import Role
from supervisor import secure_mode
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.instance import Instance, Phase
from supervisor.spawn import ProgramFailed, run_program

log = logging.getLogger(__name__)

GRACE_S = patient(0.5)
"""On top of a role's own deadline, before it is told by a signal."""
TERM_GRACE_S = patient(1.0)
KILL_GRACE_S = patient(1.0)
AS_ASKED = "as asked"
CLEANER = "kernel_agent.clean"
CLEAN_WITHIN_S = 5.0


class Shutdown:
    """The stop of one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._lines: list[str] = []
        policy = instance.holdings.policy.in_force
        self._rules = policy.parsed.rules if policy is not None and policy.parsed is not None else 0

    def run(self) -> tuple[str, ...]:
        """Ends and removes everything but the lock; a line for each step that had something to do."""
        self._instance.phase = Phase.STOPPING
        children = [self._instance.holdings.children[row.name] for row in reversed(self._instance.table)]
        was_up = {child for child in children if child.state is ChildState.UP}
        for child in children:
            child.stop()
        for role, group in itertools.groupby(children, key=lambda child: child.row.role):
            is_agent = role is Role.KERNEL_AGENT
            if is_agent:
                self._put_back_forwarding()
            living = [child for child in group if child.alive]
            asked = {child for child in living if child in was_up and self._ask(child)}
            as_asked = [self._end(child, child in asked) for child in living]
            if is_agent and not any(as_asked) and self._instance.holdings.data_path.kind is not None:
                self._say(self._clean_kernel())
        mode = secure_mode.end_if_disabled(self._instance.settings.instance)
        if mode:
            self._say(mode)
        self._instance.control.stopped(tuple(self._lines))
        self._instance.close()
        self._instance.directory.remove_sockets()
        self._instance.directory.remove_state()
        return tuple(self._lines)

    def _put_back_forwarding(self) -> None:
        """While the policies are still enforced: what is forwarded is what they allow."""
        try:
            line = self._instance.forwarding.put_back()
        except OSError as error:
            line = f"ip_forward can't be put back: {error}"
        if line:
            self._say(line)

    def _ask(self, child: Child) -> bool:
        """Tells a child to end; False if it is not there. All of a role are told before one is waited for."""
        return self._instance.send_to(child.name, m.Stop(deadline_s=self._deadline_s(child)))

    def _deadline_s(self, child: Child) -> float:
        """How long it has for what it must finish; the agent has policies and routes of every rule to remove."""
        rules = self._rules if child.row.role is Role.KERNEL_AGENT else 0
        return for_policy(child.row.stop_deadline_s, rules=rules)

    def _end(self, child: Child, asked: bool) -> bool:
        """Sees to it that a child ends; whether it did when it was asked to."""
        deadline_s, pid = self._deadline_s(child), child.pid
        how = AS_ASKED
        if not (asked and self._wait(child, deadline_s + GRACE_S)):
            how = "by SIGTERM"
            child.send_signal(signal.SIGTERM)
            if not self._wait(child, TERM_GRACE_S):
                how = "by SIGKILL"
                child.send_signal(signal.SIGKILL)
                if not self._wait(child, KILL_GRACE_S):
                    how = "not: it does not go"
        summary = self._instance.holdings.summaries.get(child.name, "")
        self._say(f"{child.name} (pid {pid}) ended {how}" + (f": {summary}" if summary else ""))
        return how == AS_ASKED

    def _wait(self, child: Child, timeout_s: float) -> bool:
        return self._instance.wait(lambda: not child.alive, timeout_s)

    def _clean_kernel(self) -> str:
        """The agent is not there to remove what it made."""
        try:
            removed = run_program(CLEANER, within_s=for_policy(CLEAN_WITHIN_S, rules=self._rules))
        except ProgramFailed as error:
            return f"kernel objects may be left: {error}"
        return f"kernel objects removed without the agent: {removed[-500:] or 'there were none'}"

    def _say(self, line: str) -> None:
        self._lines.append(line)
        log.info("%s", line)
