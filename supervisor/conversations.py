"""What the supervisor says and hears on the link to each role. Each table of handlers is that link's access list."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ipc import messages as m
from ipc import wishes as w
from ipc.channel import Handler
from ipc.links import LINKS, SUPERVISOR_AGENT, SUPERVISOR_DATA_PATH, SUPERVISOR_LOADER, SUPERVISOR_WORKER, Link
from ipc.roles import Role, name_of, process_name
from ipc.types import Secret
from supervisor.channels import Channels
from supervisor.child import Child
from supervisor.child_states import ChildState
from supervisor.data_path import DataPathKeeper
from supervisor.drift import Drift
from supervisor.errors import FileRefused, StoreFull
from supervisor.files import read_file
from supervisor.monitor import Monitor
from supervisor.name_resolver import NameResolver
from supervisor.operator_wishes import OperatorWishes
from supervisor.policy import PolicyKeeper, first_line
from supervisor.rules import Rules
from supervisor.standing import Standing
from supervisor.store import MAX_STORE_BYTES, Store
from supervisor.tunnels import Tunnels
from supervisor.watchdog import Watchdog

log = logging.getLogger(__name__)

FAULTS_BEFORE_DROP = 3
"""As often a worker may fail in a row before what it is given back is suspected."""


@dataclass(slots=True, kw_only=True)
class Holdings:
    """What the supervisor holds for its children."""

    policy: PolicyKeeper
    data_path: DataPathKeeper
    watchdog: Watchdog
    names: NameResolver
    wishes: OperatorWishes
    monitor: Monitor
    stores: dict[str, Store] = field(default_factory=dict)
    """Of each worker, by its name: nobody else's checkpoints are given to it, or changed by it."""
    tunnels: Tunnels = field(default_factory=Tunnels)
    rules: Rules = field(default_factory=Rules)
    standing: Standing = field(default_factory=Standing)
    drift: Drift = field(default_factory=Drift)
    children: dict[str, Child] = field(default_factory=dict)
    """By name: that of a role, and a number behind it for the second of its processes and those after it."""
    ike_workers: int = 0
    """How many there are to be; 0 while no policy has said it."""
    ready: set[str] = field(default_factory=set)
    """The workers that are ready."""
    summaries: dict[str, str] = field(default_factory=dict)
    """What each process said of its stop."""

    @property
    def worker_names(self) -> tuple[str, ...]:
        """Of all workers."""
        return tuple(process_name(Role.IKE_WORKER, index) for index in range(max(1, self.ike_workers)))

    @property
    def workers_ready(self) -> bool:
        """Whether all of them are."""
        return self.ready.issuperset(self.worker_names)

    def store_of(self, worker: str) -> Store:
        """The checkpoints of this worker."""
        return self.stores.setdefault(worker, Store(MAX_STORE_BYTES // max(1, self.ike_workers)))


class Conversations:
    """The handlers of all links to children. `on_up` is called when a role has come up."""

    def __init__(self, channels: Channels, holdings: Holdings, on_up: Callable[[], None]) -> None:
        self._on_up = on_up
        self._channels = channels
        self._holdings = holdings

    def open(self) -> None:
        """Opens the links."""
        policy, data_path = self._holdings.policy, self._holdings.data_path
        own: dict[Link, dict[type, Handler]] = {
            SUPERVISOR_AGENT: {
                m.AgentReady: lambda message, _peer: data_path.on_agent_ready(message),
                m.DataPathReady: self._on_data_path_ready,
                m.DataPathFailed: lambda message, _peer: data_path.on_failed(message),
                m.PolicyDrift: lambda message, _peer: self._holdings.drift.note(message),
            },
            SUPERVISOR_LOADER: {
                m.ReadCredential: self._on_read_credential,
                m.ResolveName: self._on_resolve_name,
                m.PolicyParsed: lambda message, _peer: policy.on_parsed(message),
                m.PolicyRefused: self._on_policy_refused,
                m.PolicyEnforced: self._on_policy_enforced,
                m.PolicyNotEnforced: lambda message, _peer: policy.on_not_enforced(message),
            },
            SUPERVISOR_WORKER: {
                m.WorkerReady: self._on_worker_ready,
                m.SaveIkeSas: self._on_save_ike_sas,
                m.TunnelsChanged: lambda message, peer: self._holdings.tunnels.change(message, name_of(peer)),
                m.RulesChanged: lambda message, peer: self._holdings.rules.change(message, name_of(peer)),
                w.SasHappened: lambda message, _peer: self._holdings.monitor.tell(message.events),
                **self._holdings.wishes.worker_handlers(),
            },
            SUPERVISOR_DATA_PATH: {},
        }
        for link, handlers in own.items():
            self._channels.open(link, {**self._life_handlers(link.connector), **handlers}, self.on_refused)

    def admit(self, link_name: str, _uid: int, pid: int) -> bool:
        """Whether process `pid` may be at the other end of that link: on a role's link only its present child."""
        for link in LINKS:
            if link.name == link_name and link.binder is Role.SUPERVISOR:
                of_role = (child for child in self._holdings.children.values() if child.row.role is link.connector)
                return link.connector is Role.IPSECCTL or any(one.alive and one.pid == pid for one in of_role)
        return False

    def on_refused(self, link: Link, reason: str, peer: bytes) -> None:
        """A message to the supervisor itself was refused."""
        self._restart(_speaker(link.connector, peer), f"sent what was refused on {link.name}: {reason}")

    def know_workers(self, count: int) -> None:
        """A policy says how many workers there are: those that are up already may have what is theirs."""
        self._holdings.ike_workers = count
        for name in self._holdings.worker_names:
            child = self._holdings.children.get(name)
            if child is not None and child.state is ChildState.UP:
                self._restore(name)

    def child_gone(self, child: Child) -> None:
        """Its process has ended."""
        name, role = child.name, child.row.role
        self._holdings.watchdog.forget(name)
        self._holdings.monitor.say("role-down", f"{name} is gone: {child.last_exit}")
        if role is Role.KERNEL_AGENT:
            self._holdings.data_path.agent_went()
        elif role is Role.POLICY_LOADER:
            self._holdings.policy.loader_went()
        elif role is Role.IKE_WORKER:
            self._holdings.ready.discard(name)
            self._holdings.wishes.worker_went(name)
            self._drop_suspects(child)

    def _drop_suspects(self, worker: Child) -> None:
        """A worker that fails again and again may do so over an IKE SA it is given back: the newest are dropped first.

        What was saved before has been restored before. One, then two, four ...: any number is gone after a few deaths.
        """
        faults, store = worker.faults, self._holdings.store_of(worker.name)
        if faults < FAULTS_BEFORE_DROP or not store:
            return
        dropped = store.drop_newest(2 ** (faults - FAULTS_BEFORE_DROP))
        log.error(
            "%s failed %d times: %d IKE SAs, the last saved, are not restored any more", worker.name, faults, dropped
        )

    def _life_handlers(self, role: Role) -> dict[type, Handler]:
        watchdog, summaries = self._holdings.watchdog, self._holdings.summaries

        def on_health_answer(message: m.HealthAnswer, peer: bytes) -> None:
            watchdog.answered(_speaker(role, peer), message.sequence, message.refused_messages)

        def on_stopped(message: m.Stopped, peer: bytes) -> None:
            summaries[_speaker(role, peer)] = message.summary

        return {
            m.Hello: lambda message, peer: self._on_hello(_speaker(role, peer), message),
            m.HealthAnswer: on_health_answer,
            m.SenderMisbehaved: lambda message, peer: self._on_sender_misbehaved(_speaker(role, peer), message),
            m.Stopped: on_stopped,
        }

    def _on_hello(self, name: str, message: m.Hello) -> None:
        child = self._holdings.children.get(name)
        if child is None or not child.said_hello(message.pid):
            log.warning("%s: a Hello from pid %d, which is not its process", name, message.pid)
            return
        log.info("%s is up, pid %d", name, child.pid)
        self._holdings.monitor.say("role-up", f"{name} is up, pid {child.pid}")
        self._holdings.watchdog.watch(name)
        self._on_up()
        if child.row.role is Role.POLICY_LOADER:
            self._holdings.policy.loader_came()
        elif child.row.role is Role.IKE_WORKER and self._holdings.ike_workers:
            self._restore(name)

    def _restore(self, worker: str) -> None:
        for news in self._holdings.standing.elsewhere(worker):
            self._channels.send(Role.IKE_WORKER, m.Elsewhere(news=news), worker.encode())
        for chunk in self._holdings.store_of(worker).restore(self._holdings.ike_workers):
            self._channels.send(Role.IKE_WORKER, chunk, worker.encode())
        for news in self._holdings.standing.started_anew():
            self._channels.send(Role.IKE_WORKER, m.Elsewhere(news=news), worker.encode())

    def _on_sender_misbehaved(self, reporter: str, message: m.SenderMisbehaved) -> None:
        link = next((link for link in LINKS if link.name == message.link), None)
        child = self._holdings.children.get(reporter)
        if child is None:
            return
        if link is None or child.row.role not in (link.binder, link.connector):
            self._restart(reporter, f"spoke of link {message.link!r:.40}, which is not its own")
            return
        sender = _speaker(link.connector, message.sender.encode()) if child.row.role is link.binder else link.binder
        self._restart(sender, f"{reporter} refused what it sent on {link.name}: {message.reason}")

    def _restart(self, name: str, reason: str) -> None:
        child = self._holdings.children.get(name)
        if child is not None:
            child.kill(reason)

    def _on_data_path_ready(self, message: m.DataPathReady, _peer: bytes) -> None:
        self._holdings.data_path.on_ready(message)
        self._holdings.policy.enforce()

    def _on_policy_enforced(self, message: m.PolicyEnforced, _peer: bytes) -> None:
        self._holdings.policy.on_enforced(message)
        self._holdings.monitor.say("policy-enforced", f"policy generation {message.generation} is in force")
        self._holdings.drift.forget()

    def _on_policy_refused(self, message: m.PolicyRefused, _peer: bytes) -> None:
        reason = first_line(message.errors)
        self._holdings.monitor.say(
            "policy-refused", f"policy generation {message.generation} is not good", reason=reason
        )
        self._holdings.policy.on_refused(message)

    def _on_read_credential(self, message: m.ReadCredential, _peer: bytes) -> None:
        try:
            if not self._holdings.policy.names(message.path):
                raise FileRefused(f"{message.path!r}: the policy file does not name it, letter by letter in quotes")
            file = read_file(message.path, m.MAX_CREDENTIAL_BYTES)
        except FileRefused as error:
            answer = m.CredentialContent(
                request_id=message.request_id, content=Secret(b""), mode=0, uid=0, error=str(error)
            )
        else:
            answer = m.CredentialContent(
                request_id=message.request_id, content=file.content, mode=file.mode, uid=file.uid, error=""
            )
        self._channels.send(Role.POLICY_LOADER, answer)

    def _on_resolve_name(self, message: m.ResolveName, _peer: bytes) -> None:
        def answer(resolved: m.NameResolved) -> None:
            self._channels.send(Role.POLICY_LOADER, resolved)

        policy = self._holdings.policy
        if not policy.names(message.name):
            error = "the policy file does not hold this name, letter by letter in quotes"
            answer(m.NameResolved(request_id=message.request_id, addresses=(), error=error))
            return
        self._holdings.names.forget_before(policy.oldest_generation)
        self._holdings.names.resolve(message, answer)

    def _on_save_ike_sas(self, message: m.SaveIkeSas, peer: bytes) -> None:
        worker = name_of(peer)
        try:
            self._holdings.store_of(worker).save(message)
        except StoreFull as error:
            self._restart(worker, str(error))
            return
        if message.news is not None:
            self._holdings.standing.take(worker, message.news)
            self._tell_others(worker, message.news)
        self._channels.send(Role.IKE_WORKER, m.IkeSasSaved(sequence=message.sequence), peer)

    def _tell_others(self, worker: str, news: m.WorkerNews) -> None:
        for other in self._holdings.worker_names:
            if other != worker:
                self._channels.send(Role.IKE_WORKER, m.Elsewhere(news=news), other.encode())

    def _on_worker_ready(self, message: m.WorkerReady, peer: bytes) -> None:
        worker = name_of(peer)
        self._holdings.ready.add(worker)
        self._holdings.monitor.worker_came()
        self._holdings.tunnels.keep_only(self._holdings.store_of(worker), worker)
        for gone in self._holdings.standing.keep_only(worker, self._holdings.store_of(worker)):
            self._tell_others(worker, gone)
        log.info("%s is ready with %d IKE SAs", worker, message.ike_sas)


def _speaker(role: Role, peer: bytes) -> str:
    """The name of the process of `role` that speaks; only of workers there may be several."""
    return (name_of(peer) or Role.IKE_WORKER) if role is Role.IKE_WORKER else role
