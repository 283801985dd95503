"""A running instance: its loop, links and children, and what goes on between its start and its stop."""

import dataclasses
import enum
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable

from ipc import messages as m
from ipc import wishes as w
from ipc.links import CONTROL
from ipc.loop import Loop
from ipc.patience import for_policy, patient
from ipc.roles import Role
from ipc.status import Finding, RoleStatus, Status
from ipc.types import DataPathKind
from supervisor import notify, secure_mode
from supervisor.channels import Channels
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.control import Control
from supervisor.conversations import Conversations, Holdings
from supervisor.data_path import DataPathKeeper
from supervisor.forwarding import Forwarding
from supervisor.generations import Generations
from supervisor.lock import LockHolder
from supervisor.log_file import LogFile
from supervisor.monitor import Monitor
from supervisor.name_resolver import NameResolver
from supervisor.operator_wishes import OperatorWishes
from supervisor.policy import PolicyKeeper
from supervisor.reload import Reloads, Surroundings
from supervisor.role_table import RoleRow
from supervisor.run_directory import RunDirectory, SavedRole, SavedState
from supervisor.settings import Settings
from supervisor.signals import Signals
from supervisor.sockets import Descriptors, open_more_workers
from supervisor.spawn import spawn
from supervisor.status import (
    backup_findings,
    data_path_status,
    manual_reports,
    policy_findings,
    policy_status,
    role_findings,
    role_status,
    tunnel_report,
)
from supervisor.status_socket import StatusSocket
from supervisor.watchdog import INTERVAL_S, Watchdog

log = logging.getLogger(__name__)

READY_WITHIN_S = patient(30.0)
"""A worker that is up and has all it needs must say by then that it is ready."""
STEPS_OF_A_POLICY = 8
"""Of so many steps on a policy's way into the kernel, each may keep one role from answering."""
ENFORCERS = frozenset({Role.KERNEL_AGENT, Role.POLICY_LOADER})
"""Without them nothing comes into force: a start in which one of them dies has failed."""


class Phase(enum.Enum):
    """Of the whole instance."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Instance:
    """Everything of one instance. The lock is held before it is made, and until after it is closed."""

    def __init__(
        self,
        settings: Settings,
        table: tuple[RoleRow, ...],
        directory: RunDirectory,
        identity: LockHolder,
        log_file: LogFile | None,
    ) -> None:
        self.settings = settings
        self.table = table
        self.loop = Loop()
        self.descriptors = Descriptors()
        self.directory = directory
        self.phase = Phase.STARTING
        self.stop_reason = ""
        """Why the instance is to stop; empty while it is not."""
        self.start_error: tuple[str, ...] = ()
        """What went wrong while it started."""
        self._identity = identity
        self._log_file = log_file
        if log_file is not None:
            log_file.copy_in(self.loop)
        self.forwarding = Forwarding(self.save_state)
        self._started_at = time.monotonic()
        self.channels = Channels(self.loop, settings.instance, lambda *who: self._conversations.admit(*who))
        self.holdings = Holdings(
            policy=PolicyKeeper(
                lambda message: self.channels.send(Role.POLICY_LOADER, message),
                lambda: self.holdings.data_path.in_use,
            ),
            data_path=DataPathKeeper(lambda message: self.channels.send(Role.KERNEL_AGENT, message)),
            watchdog=Watchdog(
                lambda name, sequence: self.send_to(name, m.HealthQuestion(sequence=sequence)),
            ),
            names=NameResolver(self.loop),
            wishes=OperatorWishes(
                self.loop,
                self.send_to,
                lambda peer, message: self.channels.send(Role.IPSECCTL, message, peer),
                lambda: self.holdings.worker_names if self.holdings.workers_ready else (),
            ),
            monitor=Monitor(
                lambda peer, message: self.channels.send(Role.IPSECCTL, message, peer),
                lambda on: [self.send_to(name, w.WatchSas(on=on)) for name in self.holdings.worker_names],
            ),
        )
        self.holdings.data_path.log_unmatched(settings.log_unmatched)
        self._conversations = Conversations(self.channels, self.holdings, self._try_save_state)
        self.reloads = Reloads(
            self.holdings.policy,
            Generations(settings.spd_path),
            Surroundings(
                loop=self.loop,
                tunnels=self.holdings.tunnels,
                why_not=self._why_no_reload,
                adapt=self._adapt,
            ),
        )
        self.control = Control(
            self.channels,
            self.reloads,
            self.ask_stop,
            self.holdings.data_path.log_unmatched,
            self.holdings.wishes,
            self.holdings.monitor,
        )
        self._was_secure: bool | None = None
        self._status_socket: StatusSocket | None = None
        for row in table:
            self.holdings.children[row.name] = Child(row, self.loop, self._spawn, self._on_child_gone)
        self._signals = Signals(
            self.loop,
            {
                signal.SIGCHLD: self._reap,
                signal.SIGTERM: lambda: self.ask_stop("SIGTERM"),
                signal.SIGINT: lambda: self.ask_stop("SIGINT"),
                signal.SIGHUP: lambda: self.reloads.reload(_say_nothing),
                signal.SIGUSR1: self._reopen_log,
            },
        )

    def open_links(self) -> None:
        """Opens the links to the children and to ipsecctl."""
        self._conversations.open()
        self.channels.open(CONTROL, self.control.handlers(), lambda *_refused: None)
        self._status_socket = StatusSocket(self.loop, self.settings.instance, lambda: self.status().to_json())

    def set_workers(self, count: int) -> tuple[Child, ...]:
        """There are to be so many IKE workers, for the life of the instance; those that are not started yet."""
        first = next(row for row in self.table if row.role is Role.IKE_WORKER)
        more = tuple(dataclasses.replace(first, index=index) for index in range(1, count))
        open_more_workers(self.descriptors, count)
        self.table += more
        for row in more:
            self.holdings.children[row.name] = Child(row, self.loop, self._spawn, self._on_child_gone)
        self.holdings.data_path.ike_workers = count
        self._conversations.know_workers(count)
        return tuple(self.holdings.children[row.name] for row in more)

    def run(self) -> None:
        """Goes round until somebody wants it to stop."""
        self.phase = Phase.RUNNING
        notify.ready()
        notify.keep_watchdog(self.loop)
        self._tick()
        while not self.stop_reason:
            self.loop.run_once()

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Goes round until `done`, at most `timeout_s`; whether it is done."""
        deadline = time.monotonic() + timeout_s
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self.loop.run_once(left_s)
        return True

    def ask_stop(self, reason: str) -> None:
        """Ends `run`, or the start."""
        self.stop_reason = self.stop_reason or reason

    def status(self) -> Status:
        """The whole status, from what is here."""
        now = time.monotonic()
        holdings = self.holdings
        watchdog, tunnels = holdings.watchdog, holdings.tunnels.all()
        roles: list[RoleStatus] = []
        findings: list[Finding] = []
        for row in self._wanted_rows():
            child = holdings.children[row.name]
            role = role_status(child, watchdog.refused_messages(row.name), now, watchdog.silent_s(row.name, now))
            roles.append(role)
            findings += role_findings(child, role)
        findings += policy_findings(holdings.policy, holdings.data_path)
        findings += holdings.drift.findings()
        findings += backup_findings(holdings.policy, self.reloads.generations)
        if self.phase is not Phase.RUNNING:
            findings.append(
                Finding(code=f"instance-{self.phase.value}", sentence=f"the instance is {self.phase.value}")
            )
        if self.loop.failures:
            sentence = f"{self.loop.failures} callbacks of the supervisor failed; its log says which"
            findings.append(Finding(code="supervisor-failures", sentence=sentence))
        return Status(
            running=True,
            phase=self.phase.value,
            mode="secure" if secure_mode.is_on() else "normal" if holdings.policy.in_force is not None else "none",
            instance=self.settings.instance,
            pid=self._identity.pid,
            start_time=self._identity.start_time,
            up_s=round(now - self._started_at, 1),
            policy=policy_status(
                holdings.policy, now, self.reloads.generations.number, self.reloads.confirm_within_s()
            ),
            data_path=data_path_status(holdings.data_path),
            roles=tuple(roles),
            tunnels=(
                *(tunnel_report(tunnel, now) for tunnel in tunnels),
                *manual_reports(holdings.policy, now),
            ),
            down=holdings.rules.down({child.rule for tunnel in tunnels for child in tunnel.children}),
            stored_ike_sas=sum(len(store) for store in holdings.stores.values()),
            refused_messages=self.channels.refused_messages,
            findings=tuple(findings),
        )

    def save_state(self) -> None:
        """Writes the saved information; OSError if the disk is full."""
        kind = self.holdings.data_path.kind
        children = (self.holdings.children[row.name] for row in self.table)
        self.directory.write_state(
            SavedState(
                pid=self._identity.pid,
                start_time=self._identity.start_time,
                boot_id=self._identity.boot_id,
                spd_path=self.settings.spd_path,
                data_path=kind.name.lower() if kind is not None else "",
                roles=tuple(
                    SavedRole(role=child.name, pid=child.pid, start_time=child.start_time)
                    for child in children
                    if child.alive
                ),
                network_namespace=os.stat("/proc/self/ns/net").st_ino,
                ip_forward_before=self.forwarding.before,
            )
        )

    def take_over_forwarding(self) -> None:
        """Learns from the saved information what an instance that died here has not put back."""
        namespace = os.stat("/proc/self/ns/net").st_ino
        self.forwarding.before = self.directory.left_ip_forward(self._identity.boot_id, namespace)

    def set_forwarding(self) -> str:
        """Sets ip_forward as the policy in force says; why it can't be set, for people, empty if it was."""
        policy = self.holdings.policy.in_force
        try:
            if policy is not None and policy.parsed is not None:
                self.forwarding.want(policy.parsed.ip_forward)
        except OSError as error:
            return f"ip_forward can't be set: {error}"
        return ""

    def close(self) -> None:
        """Closes what is open; every child has ended."""
        self.reloads.close()
        if self._status_socket is not None:
            self._status_socket.close()
        if self._log_file is not None:
            self._log_file.close()
        self.channels.close()
        self._signals.close()
        self.loop.close()
        self.descriptors.close_all()

    def send_to(self, name: str, message: object) -> bool:
        """Speaks to the process of this name."""
        return self.channels.send(self.holdings.children[name].row.role, message, name.encode())

    def _spawn(self, row: RoleRow) -> "subprocess.Popen[bytes]":
        log_to = self._log_file.write_end if self._log_file is not None else None
        return spawn(row, self.settings, self.descriptors, log_to)

    def _wanted_rows(self) -> tuple[RoleRow, ...]:
        """The rows of the roles that this instance has with its data path."""
        children = self.holdings.children
        return tuple(
            row for row in self.table if not row.userspace_only or children[row.name].state is not ChildState.DOWN
        )

    def _reap(self) -> None:
        for child in self.holdings.children.values():
            child.reap()

    def _on_child_gone(self, child: Child) -> None:
        if self.phase is Phase.STARTING and child.row.role in ENFORCERS:
            self.start_error = self.start_error or (f"{child.name} died while it started: {child.last_exit}",)
        self._conversations.child_gone(child)

    def _tick(self) -> None:
        self.loop.call_later(INTERVAL_S, self._tick)
        self._watch_secure_mode()
        now = time.monotonic()
        for name in self.holdings.watchdog.tick(now, self._for_policy_s() / STEPS_OF_A_POLICY):
            self.holdings.children[name].kill("it does not answer")
        for name in self.holdings.worker_names:
            worker = self.holdings.children[name]
            waited = now - worker.started_at > READY_WITHIN_S + self._for_policy_s()
            if name not in self.holdings.ready and waited and self._could_be_ready():
                worker.kill(f"it is not ready after {now - worker.started_at:.0f} s")

    def _for_policy_s(self) -> float:
        """How much longer the policy may make what has to do with it take."""
        return for_policy(0.0, size_bytes=self.holdings.policy.size_bytes)

    def _watch_secure_mode(self) -> None:
        """Whoever has changed it: for those who listen."""
        if not self.holdings.monitor.listeners:
            self._was_secure = None
            return
        before, self._was_secure = self._was_secure, secure_mode.is_on()
        if before is not None and before is not self._was_secure:
            kind = "secure-mode-on" if self._was_secure else "secure-mode-off"
            self.holdings.monitor.say(kind, f"secure mode is {'on' if self._was_secure else 'off'}")

    def _could_be_ready(self) -> bool:
        """Whether a worker has had all that it needs, for as long as it has been there."""
        policy, children = self.holdings.policy, self.holdings.children
        loader, agent = children[Role.POLICY_LOADER], children[Role.KERNEL_AGENT]
        up_since = max(loader.started_at, agent.started_at)
        up = loader.state is ChildState.UP and agent.state is ChildState.UP
        waited = time.monotonic() - up_since > READY_WITHIN_S + self._for_policy_s()
        return up and waited and policy.in_force is not None and not policy.loader_lacks_policy

    def _try_save_state(self) -> None:
        try:
            self.save_state()
        except OSError as error:
            log.error("the saved information can't be written: %s", error)

    def _reopen_log(self) -> None:
        if self._log_file is None:
            log.debug("SIGUSR1, and no log file to reopen")
            return
        try:
            self._log_file.reopen()
        except OSError as error:
            log.error("the log file can't be reopened: %s", error)
        else:
            log.info("the log file was reopened")

    def _why_no_reload(self) -> str:
        return "" if self.phase is Phase.RUNNING else f"the instance is {self.phase.value}"

    def _adapt(self) -> tuple[str, ...]:
        """Has the host follow the policy that came into force; what there is to say of that."""
        problem = self.set_forwarding()
        lines: tuple[str, ...] = (f"warning: {problem}",) if problem else ()
        policy = self.holdings.policy.in_force
        if policy is not None and policy.parsed is not None:
            waits = self.reloads.confirm_within_s() > 0
            lines += secure_mode.follow_reload(self.settings.instance, policy.parsed.unmatched, to_be_confirmed=waits)
        if policy is not None and policy.parsed is not None and policy.parsed.ike_workers != self.holdings.ike_workers:
            lines += (
                f"warning: ike_workers = {policy.parsed.ike_workers} takes effect with the next start only: "
                f"there are {self.holdings.ike_workers}",
            )
        wish = policy.parsed.data_path if policy is not None and policy.parsed is not None else DataPathKind.AUTO
        if wish not in (DataPathKind.AUTO, self.holdings.data_path.kind):
            lines += ("warning: another data_path takes effect with the next start only",)
        return lines


def _say_nothing(_in_force: bool, _lines: tuple[str, ...]) -> None:
    """For a reload that nobody waits for: the log has it."""
