"""Policies of single SAs, against a kernel: no ESP is needed to hold policies."""

import dataclasses
from collections.abc import Iterator

import pytest

from ipc.messages import KernelRule, Sa
from ipc.types import IpAddress, PortRange
from kernel_agent.xfrm.constants import NETLINK_XFRM
from kernel_agent.xfrm.netlink import RequestSocket
from kernel_agent.xfrm.policies import kernel_policies
from kernel_agent.xfrm.policy_table import PolicyTable
from kernel_agent.xfrm.sa_policies import AHEAD, MOST_PER_SA, SaPolicies
from kernel_agent.xfrm.structs import template_target
from tests.kernel_agent.values import THEIRS, name_of, rule, sa, selector
from tests.lab.namespaces import Namespace

pytestmark = pytest.mark.root

FROM_ANYWHERE = dataclasses.replace(rule(1, remote=("10.2.0.0/16",)), peer_address=None, local_address=None)
ALICE = sa(spi=0x1001, remote=(selector("10.2.1.0/24"),))
BOB = sa(spi=0x2002, remote=(selector("10.2.2.0/24"),))
"""Behind the same NAT as Alice: only the SPI tells them apart."""


class Kernel:
    """A namespace's policies, as an agent has them in hand."""

    def __init__(self, requests: RequestSocket) -> None:
        self.requests = requests
        self.table = PolicyTable(requests)
        self.of_sas = SaPolicies(requests, self.table)

    def enforce(self, *rules: KernelRule) -> None:
        self.table.install(kernel_policies(rules))
        self.of_sas.follow(rules, {})

    def add(self, *sas: Sa) -> None:
        assert self.of_sas.add(sas) == ""

    def targets(self) -> list[tuple[int, IpAddress]]:
        found = (template_target(entry.template) for entry in self.table.of_sas().values())
        return sorted((one.spi, one.destination) for one in found)

    def place(self, of: KernelRule) -> int:
        """The priority of the first policy of a rule."""
        return self.table.priorities()[kernel_policies([of]).ruled[0][0].key]

    def ahead(self) -> set[int]:
        """How far ahead of the rule's own policies those of its SAs are."""
        return {self.place(FROM_ANYWHERE) - entry.priority for entry in self.table.of_sas().values()}


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Namespace("host") as host:
        requests = host.call(lambda: RequestSocket(NETLINK_XFRM))
        made = Kernel(requests)
        made.enforce(FROM_ANYWHERE)
        yield made
        requests.close()


def test_each_sa_of_a_rule_for_anybody_has_its_own_selectors_ahead_of_the_rule(kernel: Kernel) -> None:
    kernel.add(ALICE, BOB)
    assert kernel.targets() == [(0x1001, THEIRS), (0x2002, THEIRS)]
    assert kernel.ahead() == {AHEAD}
    kernel.of_sas.remove([name_of(ALICE)])
    assert kernel.targets() == [(0x2002, THEIRS)]


def test_the_newest_sa_of_a_selector_has_it_and_the_older_one_has_it_again(kernel: Kernel) -> None:
    newer = dataclasses.replace(ALICE, spi=0x1003)
    kernel.add(ALICE)
    kernel.add(newer)
    assert kernel.targets() == [(0x1003, THEIRS)]
    kernel.of_sas.remove([name_of(newer)])
    assert kernel.targets() == [(0x1001, THEIRS)]
    kernel.add(newer)
    kernel.of_sas.remove([name_of(ALICE)])
    assert kernel.targets() == [(0x1003, THEIRS)]


def test_they_are_found_again_and_a_policy_that_is_installed_again_leaves_them_alone(kernel: Kernel) -> None:
    kernel.add(ALICE)
    successor = Kernel(kernel.requests)
    successor.enforce(FROM_ANYWHERE)
    assert successor.targets() == [(0x1001, THEIRS)]
    successor.add(ALICE, BOB)
    assert successor.targets() == [(0x1001, THEIRS), (0x2002, THEIRS)]
    assert successor.table.differences(kernel_policies([FROM_ANYWHERE])) == ()
    successor.of_sas.remove([name_of(ALICE), name_of(BOB)])
    assert successor.targets() == []


def test_they_follow_their_rule_to_another_place(kernel: Kernel) -> None:
    kernel.add(ALICE)
    others = [rule(number, remote=(f"10.{number}.0.0/24",)) for number in (5, 6, 7)]
    kernel.enforce(FROM_ANYWHERE, *others)
    before = kernel.place(FROM_ANYWHERE)
    kernel.enforce(*others, FROM_ANYWHERE)
    assert kernel.place(FROM_ANYWHERE) > before
    assert kernel.ahead() == {AHEAD}


def test_rules_whose_peer_has_an_address_need_none(kernel: Kernel) -> None:
    kernel.enforce(rule(1))
    kernel.add(sa())
    assert kernel.targets() == []


def test_selectors_that_take_too_many_are_refused_and_all_go_with_the_rest(kernel: Kernel) -> None:
    nets = tuple(selector(f"10.2.{number}.0/24", 6, PortRange(first=1, last=65534)) for number in range(10))
    why = kernel.of_sas.add([sa(remote=nets)])
    assert f"more than {MOST_PER_SA}" in why
    kernel.add(ALICE)
    assert kernel.table.remove_all() > 1
    assert kernel.targets() == []
