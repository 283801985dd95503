"""The data path in the kernel: XFRM policies with ESP templates, and XFRM SAs (RFC 4301, RFC 4303).

The kernel enforces and encrypts by itself; the agent installs, and hears ACQUIRE, EXPIRE and MAPPING. Outbound traffic
goes by the newest SA of a policy, so a rekeyed one takes over as soon as it is installed.
"""

import errno
import functools
import logging
import time
from collections.abc import Callable, Sequence

from ipc.loop import Loop
from ipc.messages import Expire, Sa, SaName, Usage
from ipc.types import DataPathKind, Direction
from kernel_agent import interfaces, netfilter
from kernel_agent.data_path import Answered, DataPathError, Done, Listener, Lost, SecurityPolicy
from kernel_agent.drift import DriftWatch
from kernel_agent.last_result import LastResult
from kernel_agent.xfrm import messages
from kernel_agent.xfrm.constants import NETLINK_NETFILTER, NETLINK_XFRM, XfrmGroup, XfrmMessage
from kernel_agent.xfrm.messages import InstalledSa
from kernel_agent.xfrm.netlink import MonitorSocket, NetlinkError, Request, RequestSocket
from kernel_agent.xfrm.policies import Planner, PolicyPlan
from kernel_agent.xfrm.policy_table import PolicyTable
from kernel_agent.xfrm.sa_policies import SaPolicies
from kernel_agent.xfrm.structs import Malformed

log = logging.getLogger(__name__)

_GONE = (errno.ESRCH, errno.ENOENT)


class XfrmPath:
    """`DataPath` by the kernel's own ESP. `drop_leftovers` removes what the other data path left installed."""

    kind = DataPathKind.KERNEL

    def __init__(
        self,
        loop: Loop,
        drop_leftovers: Callable[[], object],
        wall_clock: Callable[[], float] = time.time,
        *,
        scratch: RequestSocket | None = None,
        working: Callable[[], None] = lambda: None,
    ) -> None:
        """`scratch` is XFRM netlink in a namespace where policies may be tried; `working` is called now and then."""
        self._loop = loop
        self._drop_leftovers = drop_leftovers
        self._wall_clock = wall_clock
        self._scratch = scratch
        self.requests = RequestSocket(NETLINK_XFRM, working)
        self._netfilter = RequestSocket(NETLINK_NETFILTER)
        self._monitor: MonitorSocket | None = None
        self._policies = PolicyTable(self.requests)
        self._named: set[int] = set()
        """Interfaces whose packets are marked for the policies."""
        self._policy_plan = LastResult(Planner().kernel_policies)
        self._sa_policies = SaPolicies(self.requests, self._policies)
        self._drift = DriftWatch(self.requests, self._policies)
        self._listener: Listener | None = None

    def start(self, listener: Listener) -> None:
        """Begins to listen."""
        self._listener = listener
        try:
            self._monitor = MonitorSocket(NETLINK_XFRM, (XfrmGroup.ACQUIRE, XfrmGroup.EXPIRE, XfrmGroup.MAPPING))
        except OSError as error:
            raise DataPathError(f"no XFRM events: {error.strerror}") from error
        self._loop.add_reader(self._monitor.fileno(), self._on_event)

    def install_policy(self, policy: SecurityPolicy) -> None:
        """Enforces `policy`; DataPathError with nothing changed."""
        try:
            policies = self._policies_of(policy)
            named = set(interfaces.indexes(policy.rules).values())
            # Packets are marked before a policy asks for it, and for as long as one does.
            if named | self._named:
                netfilter.install(self._netfilter, 0, named | self._named)
            self._policies.install(policies)
            self._drop_leftovers()
            netfilter.install(self._netfilter, 0, named)
            self._named = named
            self._sa_policies.follow(policy.rules, interfaces.indexes(policy.rules))
            self._drift.settle()
        except OSError as error:
            raise DataPathError(f"the kernel did not take the policy: {error.strerror}") from error

    def check_policy(self, policy: SecurityPolicy) -> None:
        """Tries what is new in the namespace aside: policies, and SAs with fixed keys."""
        if self._scratch is None:
            return
        try:
            self._policies.check(self._policies_of(policy), PolicyTable(self._scratch))
            try_sas(self._scratch, policy.manual_sas)
        except OSError as error:
            raise DataPathError(f"the kernel would not take the policy: {error.strerror}") from error

    def drift(self, policy: SecurityPolicy) -> tuple[str, ...]:
        """As the policy table has it."""
        return self._drift.look(lambda: self._policies_of(policy))

    def _policies_of(self, policy: SecurityPolicy) -> PolicyPlan:
        return self._policy_plan.of(policy.rules, interfaces.indexes(policy.rules))

    def installed_sas(self) -> tuple[InstalledSa, ...]:
        """The SAs that carry our tag."""
        return installed_sas(self.requests)

    def add_sas(self, sas: tuple[Sa, ...], done: Done) -> None:
        """Installs all or none."""
        requests = [Request(XfrmMessage.NEWSA, messages.new_sa(sa)) for sa in sas]
        errors = self.requests.transact(requests)
        refused = next((error for error in errors if error is not None), None)
        if refused is None:
            self._add_policies(sas, done)
            return
        added = [sa for sa, error in zip(sas, errors, strict=True) if error is None]
        self._delete([SaName(spi=sa.spi, destination=sa.destination) for sa in added])
        done(f"the kernel refused the SA: {refused.strerror}")

    def _add_policies(self, sas: tuple[Sa, ...], done: Done) -> None:
        reason = self._sa_policies.add(sas)
        if reason:
            self._delete([SaName(spi=sa.spi, destination=sa.destination) for sa in sas])
        done(reason)

    def restore_sas(self, sas: tuple[Sa, ...], lost: Lost) -> None:
        """Installs those that are missing; the others live in the kernel and need nothing.

        A missing outbound SA begins at sequence number 1 again, which the peer's replay window may refuse: it is
        told as expired softly, so that it is rekeyed.
        """
        present = {installed.name for installed in self.installed_sas()}
        for sa in sas:
            name = SaName(spi=sa.spi, destination=sa.destination)
            if name not in present:
                self.add_sas((sa,), functools.partial(self._restored, sa.direction, name, lost))
            elif reason := self._sa_policies.add((sa,)):
                lost(name, reason)

    def _restored(self, direction: Direction, name: SaName, lost: Lost, reason: str) -> None:
        if reason:
            lost(name, reason)
        elif direction is Direction.OUT and self._listener is not None:
            self._listener.on_expire(Expire(sa=name, hard=False))

    def delete_sas(self, names: tuple[SaName, ...], done: Done) -> None:
        """Deletes."""
        done(self._delete(list(names)))

    def query_sas(self, names: tuple[SaName, ...], answered: Answered) -> None:
        """Asks the kernel for the counters of each."""
        usage: list[Usage] = []
        for name in names:
            try:
                body = self.requests.ask(XfrmMessage.GETSA, messages.sa_id(name))
            except NetlinkError as error:
                if error.errno in _GONE:
                    continue
                raise
            usage.append(messages.sa_usage(name, body, self._wall_clock()))
        answered(tuple(usage))

    def leave(self) -> None:
        """Stops listening."""
        if self._monitor is not None:
            self._loop.remove_reader(self._monitor.fileno())
            self._monitor.close()
        self.requests.close()
        self._netfilter.close()

    def _delete(self, names: list[SaName]) -> str:
        self._sa_policies.remove(names)
        for error in self.requests.transact([Request(XfrmMessage.DELSA, messages.sa_id(name)) for name in names]):
            if error is not None and error.errno not in _GONE:
                return f"the kernel did not delete the SA: {error.strerror}"
        return ""

    def _on_event(self) -> None:
        if self._monitor is None or self._listener is None:
            return
        try:
            answers = self._monitor.receive()
        except OSError as error:
            # ENOBUFS: what got lost comes again, with the next packet or the next lifetime.
            log.warning("XFRM events were lost: %s", error.strerror)
            return
        for answer in answers:
            self._handle(self._listener, answer.kind, answer.body)

    def _handle(self, listener: Listener, kind: int, body: bytes) -> None:
        try:
            if kind == XfrmMessage.ACQUIRE:
                acquire = messages.acquire(body)
                if acquire is not None:
                    listener.on_acquire(acquire)
            elif kind == XfrmMessage.EXPIRE:
                expire = messages.expire(body)
                if expire is not None:
                    if expire.hard:
                        self._sa_policies.remove([expire.sa])
                    listener.on_expire(expire)
            elif kind == XfrmMessage.MAPPING:
                moved = messages.mapping(body)
                if moved is not None:
                    listener.on_peer_moved(moved)
        except Malformed as error:
            log.warning("an XFRM event made no sense: %s", error)


def try_sas(scratch: RequestSocket, sas: Sequence[Sa]) -> None:
    """Has the kernel take these SAs where they do nothing; DataPathError if it does not. None is left."""
    errors = scratch.transact([Request(XfrmMessage.NEWSA, messages.new_sa(sa)) for sa in sas])
    names = [SaName(spi=sa.spi, destination=sa.destination) for sa in sas]
    scratch.transact([Request(XfrmMessage.DELSA, messages.sa_id(name)) for name in names])
    for sa, error in zip(sas, errors, strict=True):
        if error is not None:
            raise DataPathError(f"the kernel refuses the SA {sa.spi:08x} with fixed keys: {error.strerror}")


def installed_sas(requests: RequestSocket) -> tuple[InstalledSa, ...]:
    """The SAs in the kernel that carry our tag."""
    found = (messages.tagged_sa(answer.body) for answer in requests.dump(XfrmMessage.GETSA, b""))
    return tuple(installed for installed in found if installed is not None)
