"""The agent with two IKE workers: each has SAs of its own, and no say about those of the other."""

from typing import Any

import pytest

from ipc import messages as m
from ipc.messages import Sa
from ipc.types import DataPathKind
from tests.kernel_agent.test_agent import Conversation, acquire
from tests.kernel_agent.values import name_of, rule, sa

ONE, TWO = b"ike_worker", b"ike_worker-1"
FIRST, SECOND = sa(spi=0x1000), sa(spi=0x2000)


class Conversations(Conversation):
    """What was said to each worker."""

    def hear_worker(self, message: object, worker: bytes) -> bool:
        self.heard.setdefault(worker, []).append(message)
        return True

    def restart(self) -> None:
        super().restart()
        self.heard: dict[bytes, list[Any]] = {ONE: [], TWO: []}
        object.__setattr__(self.agent._speech, "worker", self.hear_worker)
        self.agent.on_worker_connected(ONE)
        self.agent.on_worker_connected(TWO)
        self.agent.on_use_data_path(m.UseDataPath(kind=DataPathKind.KERNEL, tun_interface="", ike_workers=2))
        self.commit(rule(1))

    def sync(self, worker: bytes, *sas: Sa) -> None:
        self.agent.on_sync_sa(m.SyncSa(sas=sas, last=True), worker)

    def add_for(self, worker: bytes, one: Sa) -> Any:
        self.agent.on_add_sa(m.AddSa(request_id=5, sas=(one,)), worker)
        return self.heard[worker][-1]

    @property
    def installed(self) -> set[int]:
        return {one.name.spi for one in self.path.installed_sas()}


@pytest.fixture
def talk() -> Conversations:
    made = Conversations()
    made.sync(ONE)
    made.sync(TWO)
    assert made.add_for(ONE, FIRST) == made.add_for(TWO, SECOND) == m.SaAdded(request_id=5)
    return made


def test_a_worker_can_neither_delete_nor_look_at_nor_name_what_another_has(talk: Conversations) -> None:
    talk.agent.on_delete_sa(m.DeleteSa(request_id=6, sas=(name_of(FIRST),)), TWO)
    assert talk.heard[TWO][-1] == m.SaDeleted(request_id=6)
    talk.agent.on_query_sa(m.QuerySa(request_id=7, sas=(name_of(FIRST),)), TWO)
    assert talk.heard[TWO][-1] == m.SaUsage(request_id=7, usage=())
    talk.sync(TWO, FIRST, SECOND)
    talk.agent.on_delete_sa(m.DeleteSa(request_id=8, sas=(name_of(FIRST),)), TWO)
    assert talk.installed == {0x1000, 0x2000}
    answer = talk.add_for(TWO, FIRST)
    assert isinstance(answer, m.SaRefused)
    talk.agent.on_delete_sa(m.DeleteSa(request_id=9, sas=(name_of(FIRST),)), ONE)
    assert talk.installed == {0x2000}


def test_what_becomes_of_an_sa_is_told_to_its_worker_alone(talk: Conversations) -> None:
    for heard in talk.heard.values():
        heard.clear()
    expire = m.Expire(sa=name_of(SECOND), hard=True)
    talk.agent.expired(expire)
    assert talk.heard == {ONE: [], TWO: [expire]}


def test_a_packet_that_waits_is_told_to_all(talk: Conversations) -> None:
    talk.agent.acquired(acquire(1))
    assert talk.heard[ONE][-1] == talk.heard[TWO][-1] == acquire(1)


def test_a_worker_that_comes_anew_loses_only_what_it_does_not_name(talk: Conversations) -> None:
    talk.agent.on_worker_connected(TWO)
    talk.sync(TWO)
    assert talk.installed == {0x1000}
    talk.agent.on_worker_connected(ONE)
    talk.sync(ONE, FIRST)
    assert talk.installed == {0x1000}


@pytest.mark.parametrize("order", [(ONE, TWO), (TWO, ONE)])
def test_after_the_agents_death_nothing_goes_before_all_workers_have_told(
    talk: Conversations, order: tuple[bytes, bytes]
) -> None:
    nobodys = sa(spi=0x3000)
    assert talk.add_for(ONE, nobodys) == m.SaAdded(request_id=5)
    talk.restart()
    own = {ONE: FIRST, TWO: SECOND}
    talk.sync(order[0], own[order[0]])
    assert talk.installed == {0x1000, 0x2000, 0x3000}
    other = sa(spi=0x4000)
    assert talk.add_for(order[0], other) == m.SaAdded(request_id=5)
    talk.sync(order[1], own[order[1]])
    assert talk.installed == {0x1000, 0x2000, 0x4000}


def test_who_is_no_worker_is_not_heard(talk: Conversations) -> None:
    for name in (b"ike_worker-16", b"ike_worker-01", b"", b"mallory", bytes(200)):
        talk.agent.on_worker_connected(name)
        talk.agent.on_sync_sa(m.SyncSa(sas=(), last=True), name)
        talk.agent.on_add_sa(m.AddSa(request_id=1, sas=(sa(spi=0x5000),)), name)
        talk.agent.on_delete_sa(m.DeleteSa(request_id=1, sas=(name_of(FIRST),)), name)
    assert talk.installed == {0x1000, 0x2000}
