"""The start of an instance: agent and loader, the policy's check, the data path, the policy, the worker.

That is the order in which things come into force. The worker's process is started with the first ones all the same,
since most of its time goes into imports: it does nothing before the loader gives it a policy that is enforced.
Ten seconds for all of it. Whatever fails says why in a sentence, and the stop undoes what was done. Where agent and
loader hold but another role fails again and again, the start ends with what there is, says so, and goes on trying.
"""

import socket
import time
from collections.abc import Callable

from ipc import messages as m
from ipc.patience import for_policy, patient
from ipc.roles import Role
from ipc.types import DataPathKind
from ipc.value import value
from supervisor import secure_mode, sockets
from supervisor.channels import open_listeners
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.errors import FileMissing, FileRefused, NotConfigured, StartFailed
from supervisor.instance import Instance
from supervisor.start_policy import Candidate, StartPolicies

START_WITHIN_S = 10.0
WORKER_S = 1.0
"""So much longer for each IKE worker beside the first."""


@value
class Started:
    """What runs now."""

    lines: tuple[str, ...]
    exit_code: int
    """1 if a role is missing."""


class Startup:
    """The start of one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._holdings = instance.holdings
        self._started_at = time.monotonic()
        self._within_s = patient(START_WITHIN_S)
        self._policies = StartPolicies(instance.reloads.generations, only_backup=instance.settings.backup)

    def run(self) -> Started:
        """Starts everything; StartFailed from any step."""
        try:
            first = self._policies.first()
            self._within_s = for_policy(START_WITHIN_S, size_bytes=len(first.file.content))
            self._open()
        except FileMissing as error:
            raise NotConfigured(str(error)) from error
        except FileRefused as error:
            raise StartFailed(str(error)) from error
        except OSError as error:
            raise StartFailed(f"the instance's sockets and files can't be made: {error}") from error
        self._offer(first)
        self._start(Role.KERNEL_AGENT)
        self._start(Role.POLICY_LOADER)
        self._start(Role.IKE_WORKER)
        self._until("the kernel agent to say what this kernel can do", self._agent_is_ready)
        parsed = self._parsed_policy()
        self._start_more_workers(parsed)
        self._open_data_path(parsed)
        # The agent's answer has the loader enforce the policy, here as after every later start of the agent.
        self._holdings.data_path.use()
        self._until("the policy to be in the kernel", lambda: self._holdings.policy.in_force is not None)
        problem = self._instance.set_forwarding()
        if problem:
            raise StartFailed(problem)
        self._until(
            "the IKE worker to be ready, and all roles to be up", lambda: self._all_ready() or bool(self._failing())
        )
        # Last, so that a start which fails leaves no secure mode; the policy itself discards already.
        try:
            mode = secure_mode.follow(self._instance.settings.instance, self._in_force().unmatched)
        except secure_mode.NotChanged as error:
            raise StartFailed(str(error)) from error
        self._instance.reloads.started()
        return Started(lines=(*self._summary(), *mode), exit_code=0 if self._all_ready() else 1)

    def _open(self) -> None:
        instance = self._instance
        sockets.open_ike_sockets(instance.descriptors)
        instance.directory.remove_sockets()
        open_listeners(instance.settings.instance, instance.descriptors)
        instance.open_links()
        instance.take_over_forwarding()
        instance.save_state()

    def _start_more_workers(self, parsed: m.PolicyParsed) -> None:
        """Before the data path, whose place among the sockets of UDP 4500 is behind theirs."""
        try:
            more = self._instance.set_workers(parsed.ike_workers)
        except OSError as error:
            raise StartFailed(f"the sockets of {parsed.ike_workers} IKE workers can't be made: {error}") from error
        self._within_s += patient(WORKER_S) * len(more)
        for child in more:
            child.start()

    def _open_data_path(self, parsed: m.PolicyParsed) -> None:
        present = [name for _, name in socket.if_nameindex()]
        for interface in parsed.interfaces:
            if interface not in present:
                raise StartFailed(f"the policy names interface {interface}; this host has {', '.join(present)}")
        kind = self._holdings.data_path.choose(parsed.data_path)
        try:
            if kind is DataPathKind.KERNEL:
                sockets.take_kernel_esp(self._instance.descriptors)
                return
            sockets.open_userspace(self._instance.descriptors, parsed.ike_workers)
        except OSError as error:
            raise StartFailed(f"the {kind.name.lower()} data path can't be had: {error}") from error
        self._start(Role.DATA_PATH)

    def _parsed_policy(self) -> m.PolicyParsed:
        policy = self._holdings.policy
        self._until(
            "the policy to be checked", lambda: policy.offered is not None and policy.offered.parsed is not None
        )
        if policy.offered is None or policy.offered.parsed is None:
            raise StartFailed("the policy is gone")
        return policy.offered.parsed

    def _start(self, role: Role) -> None:
        self._holdings.children[role].start()

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        """Waits; StartFailed if something goes wrong meanwhile, or the time is over."""
        self._instance.wait(lambda: done() or self._is_hopeless(), self._started_at + self._within_s - time.monotonic())
        if self._instance.start_error:
            raise StartFailed(*self._instance.start_error)
        if self._holdings.data_path.failure:
            raise StartFailed(f"the kernel agent can't use the data path: {self._holdings.data_path.failure}")
        if self._instance.stop_reason:
            raise StartFailed(f"stopped while it started: {self._instance.stop_reason}")
        if not done():
            raise StartFailed(f"not started within {self._within_s:.0f} s: it waited for {what}")

    def _is_hopeless(self) -> bool:
        instance = self._instance
        return bool(instance.start_error or instance.stop_reason or self._holdings.data_path.failure)

    def _agent_is_ready(self) -> bool:
        return self._holdings.data_path.capability is not None

    def _all_ready(self) -> bool:
        return self._holdings.workers_ready and all(child.state is ChildState.UP for child in self._started())

    def _failing(self) -> tuple[Child, ...]:
        """The roles that died too often, or, when the time is over, that died at all and are not up."""
        late = time.monotonic() >= self._started_at + self._within_s
        return tuple(
            child
            for child in self._started()
            if child.state is not ChildState.UP and (child.failed or (late and child.last_exit))
        )

    def _started(self) -> tuple[Child, ...]:
        return tuple(child for child in self._holdings.children.values() if child.state is not ChildState.DOWN)

    def _offer(self, candidate: Candidate) -> None:
        self._holdings.policy.offer(candidate.file, self._policy_finished, candidate.backup_reason)

    def _policy_finished(self, in_force: bool, lines: tuple[str, ...]) -> None:
        if in_force or self._instance.start_error:
            return
        other = self._policies.after_refusal(lines)
        if other is None:
            self._instance.start_error = self._policies.errors
        else:
            self._offer(other)

    def _in_force(self) -> m.PolicyParsed:
        policy = self._holdings.policy.in_force
        if policy is None or policy.parsed is None:
            raise StartFailed("the policy is gone")
        return policy.parsed

    def _summary(self) -> tuple[str, ...]:
        policy, parsed = self._holdings.policy.in_force, self._in_force()
        path, reason = (policy.file.path, policy.backup_reason) if policy is not None else ("", "")
        data_path, children = self._holdings.data_path, self._holdings.children
        kind = data_path.kind.name.lower() if data_path.kind is not None else "no"
        rules = "1 rule" if parsed.rules == 1 else f"{parsed.rules} rules"
        roles = ", ".join(
            f"{child.name} pid {child.pid}" for child in children.values() if child.state is ChildState.UP
        )
        return (
            *(self._policies.errors if reason else ()),
            *((f"running on backup policy {path}: {reason}",) if reason else ()),
            *(f"warning: {warning}" for warning in parsed.warnings),
            f"started: {rules} of {path}, {kind} data path ({data_path.why})",
            f"started: {roles}",
            *(
                f"not started: {child.name}, tried again and again: {child.last_exit}; ipsecctl status says more"
                for child in self._failing()
            ),
        )
