"""The kernel agent: the only role that writes to the kernel's tables, and only what the guard lets pass.

It hears the loader (policies), the workers (SAs) and the supervisor, and answers each request in order. What it knows
can be had again: a new agent asks the loader for the policy and the worker for the SAs, and the kernel goes on alone
in between (SIGKILL leaves everything enforced).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ipc import messages as m
from ipc.channel import Handler
from ipc.garbage import uncollected
from ipc.messages import KernelRule, Sa, SaName
from ipc.roles import Role, process_name
from ipc.roles import name_of as process_of
from ipc.types import Action, Direction
from ipc.value import value
from kernel_agent import guard
from kernel_agent.data_path import DataPath, DataPathError, Listener, SecurityPolicy, missing_interfaces
from kernel_agent.manual import ManualChange, ManualSas, name_of
from kernel_agent.policy_batch import PolicyBatch
from kernel_agent.reconcile import unnamed_sas
from kernel_agent.sa_table import SaTable

log = logging.getLogger(__name__)

ACQUIRE_KEPT_S = 30.0
"""As long as the kernel keeps its larval SA, and the packet with it."""
MAX_KEPT_ACQUIRES = 1024
PREDECESSOR_SPIS_S = 60.0
"""So long after a start, handshakes may still use SPIs that an agent before us gave out."""
MAX_SPIS_PER_REQUEST = 1024
MAX_WAITING_REQUESTS = 4096
FIRST_WORKER = process_name(Role.IKE_WORKER).encode()

Say = Callable[[object], bool]
SayTo = Callable[[object, bytes], bool]
"""Takes the routing id of whom to tell, too."""


@value
class Speech:
    """How the agent speaks on each link: False where nobody is there."""

    supervisor: Say
    loader: Say
    worker: SayTo


@value
class Surroundings:
    """All that the agent does not decide itself: clock (monotonic seconds), randomness, the machine."""

    now: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    interfaces: Callable[[], tuple[str, ...]]
    make_data_path: Callable[[m.UseDataPath], DataPath]
    """DataPathError if it can't work here."""
    log_unmatched: Callable[[tuple[KernelRule, ...] | None], None] = lambda _rules: None
    """Logs packets that none of these rules is about from now on; None: none at all."""


@value
class _KeptAcquire:
    acquire: m.Acquire
    until: float


@dataclass(slots=True)
class WorkerState:
    """What one IKE worker has told since it connected."""

    named: set[SaName] = field(default_factory=set)
    """The SAs that it knows, while it tells them."""
    synchronised: bool = False
    """It has told all of them, since this data path is in use."""
    waiting: list[m.AddSa] = field(default_factory=list)


class Agent:
    """The agent, between its links and its data path."""

    def __init__(self, speech: Speech, surroundings: Surroundings) -> None:
        self._speech = speech
        self._surroundings = surroundings
        self._data_path: DataPath | None = None
        self._use: m.UseDataPath | None = None
        self._batch: PolicyBatch | None = None
        self._policy: SecurityPolicy | None = None
        self._enforced: SecurityPolicy | None = None
        """What this process has put into its present data path."""
        self._rules: dict[int, KernelRule] = {}
        self._sas = SaTable(surroundings.random_bytes)
        self._manual = ManualSas()
        self._acquires: dict[int, _KeptAcquire] = {}
        self._workers: dict[bytes, WorkerState] = {}
        """By routing id; those that have connected."""
        self._started_at = surroundings.now()
        self._log_unmatched = False

    # ------------------------------------------------------------- tables of handlers: the access lists

    def supervisor_handlers(self) -> Mapping[type, Handler]:
        """For the link to the supervisor."""
        return {
            m.UseDataPath: lambda message, _peer: self.on_use_data_path(message),
            m.LogUnmatched: lambda message, _peer: self.on_log_unmatched(message),
        }

    def loader_handlers(self) -> Mapping[type, Handler]:
        """For the link to the policy loader."""
        return {
            m.BeginPolicy: lambda message, _peer: self.on_begin_policy(message),
            m.AddPolicy: lambda message, _peer: self.on_add_policy(message),
            m.AddManualSas: lambda message, _peer: self.on_add_manual_sas(message),
            m.CommitPolicy: lambda message, _peer: self.on_commit_policy(message),
        }

    def worker_handlers(self) -> Mapping[type, Handler]:
        """For the link to the worker."""
        return {
            m.SyncSa: self.on_sync_sa,
            m.AllocateSpi: self.on_allocate_spi,
            m.AddSa: self.on_add_sa,
            m.DeleteSa: self.on_delete_sa,
            m.QuerySa: self.on_query_sa,
        }

    # ------------------------------------------------------------- supervisor

    def on_use_data_path(self, message: m.UseDataPath) -> None:
        """Takes the data path into use; what is installed already goes on."""
        if self._data_path is not None and message == self._use:
            self._speech.supervisor(m.DataPathReady(kind=message.kind))
            return
        try:
            data_path = self._start(message)
        except (DataPathError, OSError) as error:
            self._speech.supervisor(m.DataPathFailed(reason=str(error)))
            return
        if self._data_path is not None:
            self._data_path.leave()
        self._data_path, self._use = data_path, message
        self._sas, self._manual = SaTable(self._surroundings.random_bytes), ManualSas()
        for installed in data_path.installed_sas():
            self._sas.add(installed.name, installed.rule_id)
        self._enforced = None
        log.info("data path: %s, %d SAs are installed", message.kind.name.lower(), len(self._sas.rules))
        # The loader first: one that is to enforce a policy when the supervisor hears of this need not send it twice.
        self.on_loader_connected()
        self._speech.supervisor(m.DataPathReady(kind=message.kind))
        self._ask_workers()

    def on_log_unmatched(self, message: m.LogUnmatched) -> None:
        """Whether packets that no rule matches are logged from now on."""
        if self._log_unmatched != message.on:
            self._log_unmatched = message.on
            self._tell_log()

    def _tell_log(self) -> None:
        """The log knows a policy by its rules; before there is one, nothing is logged."""
        rules = self._policy.rules if self._log_unmatched and self._policy is not None else None
        self._surroundings.log_unmatched(rules)

    def _start(self, message: m.UseDataPath) -> DataPath:
        data_path = self._surroundings.make_data_path(message)
        try:
            data_path.start(Listener(on_acquire=self.acquired, on_expire=self.expired, on_peer_moved=self.peer_moved))
        except (DataPathError, OSError):
            data_path.leave()
            raise
        return data_path

    # ------------------------------------------------------------- policy

    def on_loader_connected(self) -> None:
        """A loader is there: it may have a policy."""
        self._batch = None
        if self._data_path is not None:
            self._speech.loader(m.NeedPolicy())

    def on_begin_policy(self, message: m.BeginPolicy) -> None:
        """A new batch takes the place of one that was not committed.

        One that comes before there is a data path is not answered: the agent asks for it when it has one.
        """
        self._batch = None if self._data_path is None else PolicyBatch(message)

    def on_add_policy(self, message: m.AddPolicy) -> None:
        """Some rules; a refused one ends the batch."""
        if self._batch is None:
            return
        try:
            self._batch.add(message)
        except guard.Refused as error:
            self._refuse_policy(message.generation, str(error))

    def on_add_manual_sas(self, message: m.AddManualSas) -> None:
        """Some SAs with fixed keys; refused ones end the batch."""
        if self._batch is None:
            return
        try:
            self._batch.add_manual_sas(message)
        except guard.Refused as error:
            self._refuse_policy(message.generation, str(error))

    @uncollected()
    def on_commit_policy(self, message: m.CommitPolicy) -> None:
        """Enforces the batch, or says why not; a batch that was refused has been answered already."""
        batch, self._batch = self._batch, None
        data_path = self._data_path
        if batch is None or data_path is None:
            return
        try:
            policy = batch.commit(message)
            if batch.begin.check_only:
                self._check(policy)
                data_path.check_policy(policy)
                self._speech.loader(m.PolicyInstalled(generation=policy.generation))
                return
            if policy == self._enforced:
                log.debug("policy %d is enforced already", policy.generation)
                self._speech.loader(m.PolicyInstalled(generation=policy.generation))
                return
            self._install(policy, data_path)
        except (guard.Refused, DataPathError) as error:
            self._refuse_policy(message.generation, str(error))
            return
        log.info("policy %d is enforced: %d rules", policy.generation, len(policy.rules))
        self._speech.loader(m.PolicyInstalled(generation=policy.generation))
        self._synchronise_waiting()

    def _check(self, policy: SecurityPolicy) -> ManualChange:
        """What the policy does to SAs with fixed keys; guard.Refused or DataPathError if it could not be enforced."""
        missing = missing_interfaces(policy.interfaces, self._surroundings.interfaces())
        if missing:
            raise DataPathError(missing)
        change = self._manual.change(policy.manual_sas, self._sas.rules)
        self._check_names_are_free(change.replaced)
        return change

    def _install(self, policy: SecurityPolicy, data_path: DataPath) -> None:
        change = self._check(policy)
        self._enforced = None
        self._manual.apply(change, data_path)
        try:
            data_path.install_policy(policy)
        except DataPathError:
            self._manual.undo(change, data_path)
            raise
        self._policy = self._enforced = policy
        if self._log_unmatched:
            self._tell_log()
        self._rules = {rule.rule_id: rule for rule in policy.rules}
        for sa in change.all:
            self._sas.remove(name_of(sa))
            self._sas.add(name_of(sa), sa.rule_id)
        self._manual.known = {name_of(sa): sa for sa in policy.manual_sas}
        self._delete_orphans(data_path)

    def _delete_orphans(self, data_path: DataPath) -> None:
        """SAs whose rule is gone or changed: what they carry is not wanted any more, whatever the worker does."""
        orphans = tuple(name for name, rule_id in self._sas.rules.items() if not self._wants(name, rule_id))
        for name in orphans:
            self._sas.remove(name)
        if orphans:
            log.info("%d SAs of rules that are gone are removed", len(orphans))
            data_path.delete_sas(orphans, _log_failure)

    def _wants(self, name: SaName, rule_id: int) -> bool:
        rule = self._rules.get(rule_id)
        if rule is None or rule.action is not Action.PROTECT:
            return False
        return not rule.manual or name in self._manual.known

    def _check_names_are_free(self, replaced: tuple[Sa, ...]) -> None:
        """SAs with fixed keys take the place of their like, and not of what was negotiated under another rule."""
        for sa in replaced:
            former = self._rules.get(self._sas.rules[name_of(sa)])
            if former is not None and not former.manual:
                raise guard.Refused(f"SPI {sa.spi:08x} to {sa.destination} is in use by rule {former.name}")

    def look_for_drift(self) -> None:
        """Looks whether what is enforced is still as it was installed. If not, it is installed again, and told."""
        data_path, policy = self._data_path, self._enforced
        if data_path is None or policy is None:
            return
        try:
            differences = data_path.drift(policy)
        except (DataPathError, OSError) as error:
            log.warning("the kernel's policies can't be looked at: %s", error)
            return
        if not differences:
            return
        failure = ""
        try:
            data_path.install_policy(policy)
        except DataPathError as error:
            failure = str(error)
        what = "; ".join(differences)
        log.error("the kernel's policies were not as installed: %s; %s", what, failure or "they are again")
        self._speech.supervisor(m.PolicyDrift(what=what, failure=failure))

    def _refuse_policy(self, generation: int, reason: str) -> None:
        self._batch = None
        log.error("policy %d is not enforced: %s", generation, reason)
        self._speech.loader(m.PolicyNotInstalled(generation=generation, reason=reason))

    # ------------------------------------------------------------- SAs

    def on_worker_connected(self, worker: bytes = FIRST_WORKER) -> None:
        """A worker is there: it says which SAs should exist, and hears which packets wait."""
        if not process_of(worker):
            log.warning("%r is no worker's name: it is not listened to", worker[:64])
            return
        self._state_of(worker).named.clear()
        if self._data_path is None or self._policy is None:
            return
        self._speech.worker(m.NeedSas(), worker)
        self._forget_old_acquires()
        for kept in self._acquires.values():
            self._speech.worker(kept.acquire, worker)

    def _state_of(self, worker: bytes) -> WorkerState:
        return self._workers.setdefault(worker, WorkerState())

    def _ask_workers(self) -> None:
        for worker in list(self._workers) or [FIRST_WORKER]:
            self._state_of(worker).synchronised = False
            self.on_worker_connected(worker)

    def _synchronise_waiting(self) -> None:
        """The guard needs a policy before it can judge SAs: the first one makes the agent ask."""
        for worker in list(self._workers) or [FIRST_WORKER]:
            if not self._state_of(worker).synchronised:
                self.on_worker_connected(worker)

    def on_sync_sa(self, message: m.SyncSa, worker: bytes = FIRST_WORKER) -> None:
        """Adds what is missing, if the guard lets it; with the last message removes what was not named."""
        data_path, state = self._data_path, self._workers.get(worker)
        if data_path is None or self._policy is None or state is None:
            return
        good: list[Sa] = []
        for sa in message.sas:
            name = name_of(sa)
            try:
                guard.check_sa(sa, self._rules)
                guard.check_owner(name, self._sas.owners, worker)
            except guard.Refused as error:
                log.warning("SA %08x does not go on: %s", sa.spi, error)
                continue
            state.named.add(name)
            self._sas.add(name, sa.rule_id, worker)
            good.append(sa)
        data_path.restore_sas(tuple(good), lambda name, reason: self._lost(name, reason, worker))
        if message.last:
            self._end_synchronisation(data_path, state, worker)

    def _lost(self, name: SaName, reason: str, worker: bytes) -> None:
        log.warning("SA %08x does not go on: %s", name.spi, reason)
        self._sas.remove(name)
        self._speech.worker(m.Expire(sa=name, hard=True), worker)

    def _end_synchronisation(self, data_path: DataPath, state: WorkerState, worker: bytes) -> None:
        """What it has not named of its own goes; what no worker has named, when all have told what they know."""
        state.synchronised = True
        owners, named = self._sas.owners, {*state.named, *self._manual.known}
        others = {name for name, owner in owners.items() if owner != worker}
        if not self._all_synchronised():
            others |= {name for name in self._sas.rules if name not in owners}
            others |= {one.name for one in data_path.installed_sas() if one.name not in owners}
        kept = named | others
        unnamed = unnamed_sas(kept, data_path.installed_sas())
        if unnamed:
            log.info("%d SAs that the worker does not know are removed", len(unnamed))
            data_path.delete_sas(unnamed, _log_failure)
        for name in [name for name in self._sas.rules if name not in kept]:
            self._sas.remove(name)
        state.named.clear()
        waiting, state.waiting = state.waiting, []
        for request in waiting:
            self.on_add_sa(request, worker)

    def _all_synchronised(self) -> bool:
        count = self._use.ike_workers if self._use is not None else 1
        states = (self._workers.get(process_name(Role.IKE_WORKER, index).encode()) for index in range(count))
        return all(state is not None and state.synchronised for state in states)

    def on_allocate_spi(self, message: m.AllocateSpi, worker: bytes = FIRST_WORKER) -> None:
        """Random numbers of our choice: a worker can't take those of another SA."""
        count = min(message.count, MAX_SPIS_PER_REQUEST)
        self._speech.worker(m.SpiAllocated(request_id=message.request_id, spis=self._sas.allocate(count)), worker)

    def on_add_sa(self, message: m.AddSa, worker: bytes = FIRST_WORKER) -> None:
        """Guard, data path, answer. Waits until it is known which SAs the worker has."""
        state = self._workers.get(worker)
        if state is None:
            return
        if self._data_path is None or not state.synchronised:
            if len(state.waiting) < MAX_WAITING_REQUESTS:
                state.waiting.append(message)
            else:
                self._refuse_sas(message, "too many requests wait for the policy", worker)
            return
        young = self._surroundings.now() - self._started_at < PREDECESSOR_SPIS_S
        installed = guard.Installed(
            names=self._sas.rules.keys(),
            per_rule=self._sas.per_rule,
            allocated=None if young else self._sas.allocated.keys(),
        )
        try:
            guard.check_new_sas(message.sas, self._rules, installed)
        except guard.Refused as error:
            log.warning("an SA is refused: %s", error)
            self._refuse_sas(message, str(error), worker)
            return
        for sa in message.sas:
            self._sas.add(name_of(sa), sa.rule_id, worker)
        self._data_path.add_sas(message.sas, lambda reason: self._added(message, reason, worker))

    def _refuse_sas(self, message: m.AddSa | m.DeleteSa, reason: str, worker: bytes) -> None:
        self._speech.worker(m.SaRefused(request_id=message.request_id, reason=reason), worker)

    def _added(self, message: m.AddSa, reason: str, worker: bytes) -> None:
        if reason:
            for sa in message.sas:
                self._sas.remove(name_of(sa))
            log.warning("an SA is not installed: %s", reason)
            self._refuse_sas(message, reason, worker)
            return
        for sa in message.sas:
            self._acquires.pop(sa.acquire_id, None)
        log.info("SAs installed: %s", ", ".join(map(self._words, message.sas)))
        self._speech.worker(m.SaAdded(request_id=message.request_id), worker)

    def on_delete_sa(self, message: m.DeleteSa, worker: bytes = FIRST_WORKER) -> None:
        """Deletes those that are the worker's; what is not there is deleted already."""
        names = self._of_worker(message.sas, worker)
        for name in names:
            self._sas.remove(name)
        if self._data_path is None or not names:
            self._deleted(message, "", worker)
            return
        self._data_path.delete_sas(names, lambda reason: self._deleted(message, reason, worker))

    def _deleted(self, message: m.DeleteSa, reason: str, worker: bytes) -> None:
        if reason:
            self._refuse_sas(message, reason, worker)
        else:
            self._speech.worker(m.SaDeleted(request_id=message.request_id), worker)

    def on_query_sa(self, message: m.QuerySa, worker: bytes = FIRST_WORKER) -> None:
        """Usage of those that are the worker's."""

        def answer(usage: tuple[m.Usage, ...]) -> None:
            self._speech.worker(m.SaUsage(request_id=message.request_id, usage=usage), worker)

        names = self._of_worker(message.sas, worker)
        if self._data_path is None or not names:
            answer(())
        else:
            self._data_path.query_sas(names, answer)

    def _of_worker(self, names: tuple[SaName, ...], worker: bytes) -> tuple[SaName, ...]:
        """Those of `names` that exist, that IKE made, and that no other worker has."""
        known, owners, manual = self._sas.rules, self._sas.owners, self._manual.known
        return tuple(
            name for name in names if name in known and name not in manual and owners.get(name, worker) == worker
        )

    # ------------------------------------------------------------- what the data path says

    def acquired(self, acquire: m.Acquire) -> None:
        """A packet waits: the worker hears of it, a later one again until an SA answers it."""
        rule = self._rules.get(acquire.rule_id)
        if rule is None or rule.manual:
            return
        self._forget_old_acquires()
        if len(self._acquires) < MAX_KEPT_ACQUIRES:
            until = self._surroundings.now() + ACQUIRE_KEPT_S
            self._acquires[acquire.acquire_id] = _KeptAcquire(acquire=acquire, until=until)
        log.info(
            "a packet from %s to %s wants rule %s",
            acquire.packet_local,
            acquire.packet_remote,
            self._label(acquire.rule_id),
        )
        for worker in self._workers:  # they know which of them has to do with the peer
            self._speech.worker(acquire, worker)

    def expired(self, expire: m.Expire) -> None:
        """A lifetime is over. Fixed keys have none; only a data path that can't go on with one says so."""
        if expire.sa not in self._sas.rules:
            return
        if expire.sa in self._manual.known:
            if expire.hard:
                log.error("SA %08x, which has fixed keys, is gone", expire.sa.spi)
            return
        workers = self._workers_of(expire.sa)
        if expire.hard:
            self._sas.remove(expire.sa)
        for worker in workers:
            self._speech.worker(expire, worker)

    def peer_moved(self, moved: m.PeerMoved) -> None:
        """The peer's address or port changed behind a NAT."""
        if moved.sa in self._sas.rules and moved.sa not in self._manual.known:
            for worker in self._workers_of(moved.sa):
                self._speech.worker(moved, worker)

    def _workers_of(self, name: SaName) -> tuple[bytes, ...]:
        """The worker of this SA; all of them, while it is not known which has it."""
        owner = self._sas.owners.get(name)
        return (owner,) if owner is not None else tuple(self._workers)

    def _forget_old_acquires(self) -> None:
        now = self._surroundings.now()
        for acquire_id in [one for one, kept in self._acquires.items() if kept.until < now]:
            del self._acquires[acquire_id]

    def _words(self, sa: Sa) -> str:
        direction = "in" if sa.direction is Direction.IN else "out"
        return f"{sa.spi:08x} {direction} for rule {self._label(sa.rule_id)}"

    def _label(self, rule_id: int) -> str:
        rule = self._rules.get(rule_id)
        return rule.name if rule is not None else str(rule_id)


def _log_failure(reason: str) -> None:
    if reason:
        log.error("%s", reason)
