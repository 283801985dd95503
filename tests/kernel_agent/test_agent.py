"""The agent between its links and a data path in memory: conversations as loader, worker and supervisor have them."""

import random
from dataclasses import dataclass, field

import pytest

from ipc import links
from ipc import messages as m
from ipc.messages import KernelRule, Sa
from ipc.roles import Role
from ipc.types import Action, DataPathKind, Direction, Unmatched
from kernel_agent import agent as agent_module
from kernel_agent.agent import Agent, Speech, Surroundings
from kernel_agent.data_path import DataPathError
from kernel_agent.memory import MemoryPath
from tests.kernel_agent.values import name_of, rule, sa, selector

USE = m.UseDataPath(kind=DataPathKind.KERNEL, tun_interface="")


@dataclass(slots=True)
class Conversation:
    """An agent with what it said to each, in order, and the clock."""

    agent: Agent = field(init=False)
    path: MemoryPath = field(default_factory=MemoryPath)
    supervisor: list[object] = field(default_factory=list)
    loader: list[object] = field(default_factory=list)
    worker: list[object] = field(default_factory=list)
    now: float = 1000.0
    data_path_error: str = ""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new agent; the data path keeps what is installed."""
        chance = random.Random(7)
        self.agent = Agent(
            Speech(
                supervisor=lambda message: self.hear(self.supervisor, links.SUPERVISOR_AGENT, message),
                loader=lambda message: self.hear(self.loader, links.LOADER_AGENT, message),
                worker=lambda message, _worker: self.hear(self.worker, links.WORKER_AGENT, message),
            ),
            Surroundings(
                now=lambda: self.now,
                random_bytes=chance.randbytes,
                interfaces=lambda: ("lo", "veth0"),
                make_data_path=self.make_data_path,
            ),
        )

    def make_data_path(self, _message: m.UseDataPath) -> MemoryPath:
        if self.data_path_error:
            raise DataPathError(self.data_path_error)
        return self.path

    def hear(self, heard: list[object], link: links.Link, message: object) -> bool:
        assert type(message) in link.sendable(Role.KERNEL_AGENT)
        heard.append(message)
        return True

    def commit(self, *rules: KernelRule, generation: int = 1, interfaces: tuple[str, ...] = ()) -> object:
        """A whole policy, and the answer."""
        begin = m.BeginPolicy(generation=generation, interfaces=interfaces, unmatched=Unmatched.BYPASS)
        self.agent.on_begin_policy(begin)
        self.agent.on_add_policy(m.AddPolicy(generation=generation, rules=rules))
        self.agent.on_commit_policy(m.CommitPolicy(generation=generation, rules=len(rules)))
        return self.loader[-1]

    def add(self, *sas: Sa) -> object:
        """An AddSa, and the answer."""
        self.agent.on_add_sa(m.AddSa(request_id=5, sas=sas))
        return self.worker[-1]

    def run(self) -> None:
        """To where SAs can be added."""
        self.agent.on_use_data_path(USE)
        self.commit(rule(1))
        self.agent.on_sync_sa(m.SyncSa(sas=(), last=True))
        self.worker.clear()

    def reasons(self, heard: list[object]) -> list[str]:
        return [one.reason for one in heard if isinstance(one, m.SaRefused | m.PolicyNotInstalled)]


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


@pytest.fixture
def running(talk: Conversation) -> Conversation:
    talk.run()
    return talk


def test_the_handlers_are_the_access_lists(talk: Conversation) -> None:
    role = Role.KERNEL_AGENT
    assert set(talk.agent.loader_handlers()) == links.LOADER_AGENT.receivable(role)
    assert set(talk.agent.worker_handlers()) == links.WORKER_AGENT.receivable(role)
    assert set(talk.agent.supervisor_handlers()) == {m.UseDataPath, m.LogUnmatched}


def test_from_the_start_to_the_first_sa(talk: Conversation) -> None:
    talk.agent.on_loader_connected()
    talk.agent.on_worker_connected()
    assert (talk.loader, talk.worker) == ([], [])
    talk.agent.on_use_data_path(USE)
    assert talk.supervisor == [m.DataPathReady(kind=DataPathKind.KERNEL)]
    assert talk.loader == [m.NeedPolicy()]
    assert talk.commit(rule(1), interfaces=("veth0",)) == m.PolicyInstalled(generation=1)
    assert talk.worker == [m.NeedSas()]
    talk.agent.on_sync_sa(m.SyncSa(sas=(), last=True))
    talk.agent.on_allocate_spi(m.AllocateSpi(request_id=4, count=3))
    (answer,) = talk.worker[1:]
    assert isinstance(answer, m.SpiAllocated)
    assert len(set(answer.spis)) == 3
    inward, outward = sa(Direction.IN, answer.spis[0]), sa(Direction.OUT, 0x2000)
    assert talk.add(inward, outward) == m.SaAdded(request_id=5)
    assert list(talk.path.sas.values()) == [inward, outward]


def test_a_data_path_that_can_not_work_is_reported(talk: Conversation) -> None:
    talk.data_path_error = "the kernel takes no ESP SA"
    talk.agent.on_use_data_path(USE)
    assert talk.supervisor == [m.DataPathFailed(reason="the kernel takes no ESP SA")]


@pytest.mark.parametrize(("interface", "good"), [("lo", True), ("eth7", False)])
def test_a_policy_that_is_only_checked_is_judged_and_changes_nothing(
    running: Conversation, interface: str, good: bool
) -> None:
    before = running.path.policy
    begin = m.BeginPolicy(generation=2, interfaces=(interface,), unmatched=Unmatched.BYPASS, check_only=True)
    running.agent.on_begin_policy(begin)
    running.agent.on_add_policy(m.AddPolicy(generation=2, rules=(rule(7),)))
    running.agent.on_commit_policy(m.CommitPolicy(generation=2, rules=1))
    answer = running.loader[-1]
    if good:
        assert answer == m.PolicyInstalled(generation=2)
    else:
        assert isinstance(answer, m.PolicyNotInstalled)
        assert "eth7" in answer.reason
    assert running.path.policy is before
    assert isinstance(running.add(sa(Direction.IN, 4000, rule_id=7)), m.SaRefused)


def test_a_policy_that_comes_before_the_data_path_is_asked_for_again(talk: Conversation) -> None:
    talk.loader.append(None)
    assert talk.commit(rule(1)) is None  # not answered, neither way
    talk.agent.on_use_data_path(USE)
    assert talk.loader[1:] == [m.NeedPolicy()]
    assert talk.commit(rule(1)) == m.PolicyInstalled(generation=1)


def test_the_same_data_path_again_changes_nothing(running: Conversation) -> None:
    running.add(sa())
    running.agent.on_use_data_path(USE)
    assert running.supervisor[-1] == m.DataPathReady(kind=DataPathKind.KERNEL)
    assert len(running.path.sas) == 1


def test_a_missing_interface_is_named_with_those_that_exist(running: Conversation) -> None:
    answer = running.commit(rule(1), generation=2, interfaces=("lo", "eth9"))
    reason = "interface eth9 does not exist; there are: lo, veth0"
    assert answer == m.PolicyNotInstalled(generation=2, reason=reason)
    assert running.path.policy is not None
    assert running.path.policy.generation == 1


def test_a_refused_batch_is_answered_once(running: Conversation) -> None:
    running.loader.clear()
    running.commit(rule(0), rule(1), generation=2)
    assert running.reasons(running.loader) == ["rule rule-0: id 0 is out of range"]


@pytest.mark.parametrize(
    ("rules", "count", "said"),
    [
        ((rule(1),), 2, "1 rules came of 2"),
        ((rule(1), rule(1)), 2, "two rules have the same id"),
    ],
)
def test_a_batch_must_be_whole(running: Conversation, rules: tuple[KernelRule, ...], count: int, said: str) -> None:
    running.agent.on_begin_policy(m.BeginPolicy(generation=2, interfaces=(), unmatched=Unmatched.BYPASS))
    running.agent.on_add_policy(m.AddPolicy(generation=2, rules=rules))
    running.agent.on_commit_policy(m.CommitPolicy(generation=2, rules=count))
    assert running.reasons(running.loader) == [said]


def test_rules_of_another_generation_are_refused(running: Conversation) -> None:
    running.agent.on_begin_policy(m.BeginPolicy(generation=2, interfaces=(), unmatched=Unmatched.BYPASS))
    running.agent.on_add_policy(m.AddPolicy(generation=3, rules=(rule(1),)))
    assert running.reasons(running.loader) == ["rules of policy 3 within policy 2"]


def test_what_the_kernel_refuses_is_not_in_force(running: Conversation) -> None:
    running.path.refuse = "no memory"
    assert running.commit(rule(7), generation=2) == m.PolicyNotInstalled(generation=2, reason="no memory")
    running.path.refuse = ""
    assert running.add(sa()) == m.SaAdded(request_id=5)


def test_the_guard_stands_before_the_data_path(running: Conversation) -> None:
    answer = running.add(sa(local=(selector("0.0.0.0/0"),)))
    assert isinstance(answer, m.SaRefused)
    assert "outside rule rule-1" in answer.reason
    assert running.path.sas == {}


def test_an_sa_that_the_kernel_refused_can_be_tried_again(running: Conversation) -> None:
    running.path.refuse = "no buffer space"
    assert running.add(sa()) == m.SaRefused(request_id=5, reason="no buffer space")
    running.path.refuse = ""
    assert running.add(sa()) == m.SaAdded(request_id=5)


def test_deleting_is_idempotent_and_reaches_only_our_sas(running: Conversation) -> None:
    running.add(sa())
    running.path.sas[name_of(sa(spi=0x7777))] = sa(spi=0x7777)  # somebody else's: not ours to delete
    for _ in range(2):
        names = (name_of(sa()), name_of(sa(spi=0x7777)))
        running.agent.on_delete_sa(m.DeleteSa(request_id=6, sas=names))
        assert running.worker[-1] == m.SaDeleted(request_id=6)
    assert list(running.path.sas) == [name_of(sa(spi=0x7777))]


def test_usage_is_of_our_sas_only(running: Conversation) -> None:
    running.add(sa())
    running.agent.on_query_sa(m.QuerySa(request_id=7, sas=(name_of(sa()), name_of(sa(spi=0x7777)))))
    answer = running.worker[-1]
    assert isinstance(answer, m.SaUsage)
    assert [usage.sa for usage in answer.usage] == [name_of(sa())]


def test_spis_are_random_and_never_reserved_or_used(running: Conversation) -> None:
    running.agent.on_allocate_spi(m.AllocateSpi(request_id=1, count=10**18))
    answer = running.worker[-1]
    assert isinstance(answer, m.SpiAllocated)
    assert len(set(answer.spis)) == agent_module.MAX_SPIS_PER_REQUEST
    assert min(answer.spis) >= 256


def test_an_inbound_spi_of_the_workers_own_is_refused_once_the_agent_is_not_young(running: Conversation) -> None:
    assert running.add(sa(Direction.IN, 0x1000)) == m.SaAdded(request_id=5)
    running.now += agent_module.PREDECESSOR_SPIS_S
    answer = running.add(sa(Direction.IN, 0x1001))
    assert isinstance(answer, m.SaRefused)
    assert "not allocated" in answer.reason


def acquire(number: int) -> m.Acquire:
    packet = selector("10.1.0.7/32", 17), selector("10.2.0.7/32", 17)
    return m.Acquire(acquire_id=number, rule_id=1, packet_local=packet[0], packet_remote=packet[1])


def test_an_acquire_is_said_again_to_a_new_worker_until_it_is_answered_or_old(running: Conversation) -> None:
    for number in (1, 2, 3):
        running.agent.acquired(acquire(number))
        running.now += 5
    assert running.worker == [acquire(1), acquire(2), acquire(3)]
    running.add(sa(acquire_id=2))
    running.worker.clear()
    running.agent.on_worker_connected()
    assert running.worker == [m.NeedSas(), acquire(1), acquire(3)]
    running.now += agent_module.ACQUIRE_KEPT_S - 12
    running.worker.clear()
    running.agent.on_worker_connected()
    assert running.worker == [m.NeedSas(), acquire(3)]


def test_kept_acquires_are_bounded(running: Conversation) -> None:
    for number in range(1, 3000):
        running.agent.acquired(acquire(number))
    running.worker.clear()
    running.agent.on_worker_connected()
    assert len(running.worker) == 1 + agent_module.MAX_KEPT_ACQUIRES


def test_an_acquire_of_a_rule_that_is_gone_is_not_said(running: Conversation) -> None:
    running.commit(rule(2), generation=2)
    running.worker.clear()
    running.agent.acquired(acquire(1))
    assert running.worker == []


def test_expiries_of_our_sas_reach_the_worker(running: Conversation) -> None:
    running.add(sa())
    running.worker.clear()
    for hard in (False, True, True):
        running.agent.expired(m.Expire(sa=name_of(sa()), hard=hard))
    running.agent.expired(m.Expire(sa=name_of(sa(spi=0x7777)), hard=True))
    assert running.worker == [m.Expire(sa=name_of(sa()), hard=False), m.Expire(sa=name_of(sa()), hard=True)]


def test_a_reload_keeps_the_sas_of_rules_that_stay_and_removes_the_others(running: Conversation) -> None:
    running.commit(rule(1), rule(2, remote=("10.3.0.0/24",)), generation=2)
    running.add(sa(), sa(spi=0x2000, rule_id=2, remote=(selector("10.3.0.0/24"),)))
    running.commit(rule(1), generation=3)
    assert list(running.path.sas) == [name_of(sa())]
    running.commit(rule(1, Action.BYPASS), generation=4)
    assert running.path.sas == {}


def test_a_new_agent_goes_on_with_what_is_installed(running: Conversation) -> None:
    inward, outward = sa(Direction.IN, 0x1000), sa(Direction.OUT, 0x2000)
    running.add(inward, outward)
    before = dict(running.path.sas)
    running.restart()
    running.agent.on_use_data_path(USE)
    running.commit(rule(1))
    assert running.worker[-1] == m.NeedSas()
    # A request that overtakes the synchronisation waits for it.
    running.agent.on_add_sa(m.AddSa(request_id=9, sas=(sa(Direction.OUT, 0x3000),)))
    assert running.worker[-1] == m.NeedSas()
    running.agent.on_sync_sa(m.SyncSa(sas=(inward,), last=False))
    running.agent.on_sync_sa(m.SyncSa(sas=(outward,), last=True))
    assert running.worker[-1] == m.SaAdded(request_id=9)
    assert list(running.path.sas.values()) == [*before.values(), sa(Direction.OUT, 0x3000)]


def test_synchronising_adds_what_is_missing_and_removes_what_is_not_named(running: Conversation) -> None:
    running.add(sa(spi=0x1000), sa(spi=0x2000))
    running.agent.on_sync_sa(m.SyncSa(sas=(sa(spi=0x2000),), last=False))
    assert len(running.path.sas) == 2
    running.agent.on_sync_sa(m.SyncSa(sas=(sa(spi=0x3000),), last=True))
    assert list(running.path.sas) == [name_of(sa(spi=0x2000)), name_of(sa(spi=0x3000))]


def test_synchronised_sas_pass_the_guard_too(running: Conversation) -> None:
    evil = sa(spi=0x3000, remote=(selector("0.0.0.0/0"),))
    running.agent.on_sync_sa(m.SyncSa(sas=(evil,), last=True))
    assert running.path.sas == {}


def test_an_sa_that_can_not_be_restored_is_told_as_gone(running: Conversation) -> None:
    running.path.refuse = "no counters"
    running.agent.on_sync_sa(m.SyncSa(sas=(sa(),), last=True))
    assert running.worker == [m.Expire(sa=name_of(sa()), hard=True)]
    running.path.refuse = ""
    assert running.add(sa()) == m.SaAdded(request_id=5)


def test_a_moved_peer_is_told_for_our_sas_only(running: Conversation) -> None:
    running.add(sa())
    running.worker.clear()
    for spi in (sa().spi, 0x7777):
        moved = m.PeerMoved(sa=name_of(sa(spi=spi)), source=sa().source, source_port=61234)
        running.agent.peer_moved(moved)
    assert [one.sa for one in running.worker if isinstance(one, m.PeerMoved)] == [name_of(sa())]
