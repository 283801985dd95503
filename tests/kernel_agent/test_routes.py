"""Which rules and routes lead into the TUN: the SPD's first match, in the words of policy routing."""

import ipaddress
import random
import socket
from dataclasses import dataclass, replace

import pytest
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_TO_TBL

from ipc.messages import KernelRule
from ipc.ownership import OUTER_MARK, RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST
from ipc.types import Action, NextLayer, PortRange, Prefix
from kernel_agent import routes
from kernel_agent.data_path import DataPathError
from kernel_agent.routes import ANY_ORDER, IN_ORDER, Route, RoutingPlan, RoutingRule, plan
from tests.kernel_agent.values import prefix, rule

TUN = 7
INSIDE = ipaddress.ip_address("10.1.0.1")


def middle(rules: tuple[RoutingRule, ...]) -> list[RoutingRule]:
    return [one for one in rules if RULE_PREFERENCE_FIRST < one.preference < RULE_PREFERENCE_LAST]


def test_nothing_to_protect_needs_nothing() -> None:
    nothing = plan([rule(1, Action.BYPASS), rule(2, Action.DISCARD)], [INSIDE], TUN)
    assert (nothing.rules, nothing.routes) == ((), ())


def test_own_packets_jump_past_all_and_each_family_has_its_frame() -> None:
    two = rule(1, local=("10.1.0.0/24", "fd01::/64"), remote=("10.2.0.0/24", "fd02::/64"))
    rules = plan([two], [], TUN).rules
    for family in (socket.AF_INET, socket.AF_INET6):
        first, protect, last = (one for one in rules if one.family == family)
        assert (first.preference, first.action, first.mark) == (RULE_PREFERENCE_FIRST, FR_ACT_GOTO, OUTER_MARK)
        assert (protect.preference, protect.action) == (RULE_PREFERENCE_FIRST + 1, FR_ACT_TO_TBL)
        assert (last.preference, last.action) == (RULE_PREFERENCE_LAST, FR_ACT_NOP)


def test_only_a_bypass_that_takes_packets_from_a_later_protect_rule_jumps() -> None:
    rules = [
        rule(1, Action.BYPASS, protocol=6, local_port=PortRange(first=22, last=22)),
        rule(2, Action.BYPASS, remote=("10.77.0.0/24",)),
        rule(3, Action.DISCARD),
        rule(4),
        rule(5, Action.BYPASS),
        rule(6, remote=("10.3.0.0/24",)),
    ]
    steps = middle(plan(rules, [], TUN).rules)
    assert [(one.preference, one.action, str(one.destination)) for one in steps] == [
        (ANY_ORDER, FR_ACT_TO_TBL, "10.3.0.0/24"),  # no bypass rule before it concerns it
        (IN_ORDER, FR_ACT_NOP, "None"),
        (IN_ORDER + 1, FR_ACT_GOTO, "10.2.0.0/24"),
        (IN_ORDER + 2, FR_ACT_TO_TBL, "10.2.0.0/24"),
    ]
    assert steps[2].source_port == PortRange(first=22, last=22)


def test_a_rule_with_lists_is_led_by_each_protocol_and_port_once() -> None:
    """ICMP types are no criterion here: a list of them is one step."""
    types = [NextLayer(protocol=1, local_port=kind, remote_port=kind) for kind in map(icmp_type, (0, 3))]
    tcp = [NextLayer(protocol=6, remote_port=PortRange(first=port, last=port)) for port in (80, 443)]
    one = replace(rule(1, protocol=1, local_port=icmp_type(8), remote_port=icmp_type(8)), also=(*types, *tcp))
    steps = middle(plan([one], [], TUN).rules)
    assert [(step.protocol, str(step.destination_port)) for step in steps] == [(1, "any"), (6, "80"), (6, "443")]


def icmp_type(kind: int) -> PortRange:
    return PortRange(first=kind << 8, last=kind << 8 | 255)


def test_the_position_counts_and_not_the_order_of_arrival() -> None:
    bypass, protect = rule(1, Action.BYPASS, position=5), rule(2, position=6)
    assert plan([protect, bypass], [], TUN) == plan([bypass, protect], [], TUN)
    assert len(middle(plan([protect, bypass], [], TUN).rules)) == 3


def test_a_socket_without_source_gets_one_where_there_is_one() -> None:
    (step,) = middle(plan([rule(1)], [], TUN).rules)
    assert step.source == prefix("10.1.0.0/24")
    bound, unbound = middle(plan([rule(1)], [ipaddress.ip_address("192.0.2.1"), INSIDE], TUN).rules)
    assert (bound.source, unbound.source) == (prefix("10.1.0.0/24"), prefix("0.0.0.0/32"))
    assert plan([rule(1)], [INSIDE], TUN).routes == (
        Route(destination=prefix("10.2.0.0/24"), ifindex=TUN, source=INSIDE),
        Route(destination=prefix("10.2.0.0/24"), ifindex=0, source=None),
    )


def test_what_this_host_sends_by_ipv6_without_a_source_comes_to_the_tun_too() -> None:
    inside = ipaddress.ip_address("fd01::1")
    one = rule(1, local=("fd01::/64",), remote=("fd02::/64",))
    bound, own = middle(plan([one], [inside], TUN).rules)
    assert (bound.source, bound.own, own.source, own.own) == (prefix("fd01::/64"), False, None, True)
    assert bound.destination == own.destination == prefix("fd02::/64")
    assert len(middle(plan([one], [], TUN).rules)) == 1


def test_too_many_turns_are_refused_in_words() -> None:
    rules = []
    for number in range(0, 120, 2):
        remote = (f"10.{number}.0.0/16",)
        rules.append(rule(number + 1, Action.BYPASS, protocol=6, remote=remote))
        rules.append(rule(number + 2, remote=remote))
    with pytest.raises(DataPathError, match="alternate too often"):
        plan(rules, [], TUN)


# ------------------------------------------------------------- against a walk of the SPD

NETS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "10.2.7.0/24", "10.3.0.0/16", "0.0.0.0/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What routing rules look at; it is forwarded."""

    source: ipaddress.IPv4Address
    destination: ipaddress.IPv4Address
    protocol: int
    source_port: int
    destination_port: int


def inside(one: Prefix | None, address: ipaddress.IPv4Address) -> bool:
    return one is None or address in ipaddress.ip_network(str(one))


def rule_matches(one: RoutingRule, packet: Packet) -> bool:
    return (
        one.family == socket.AF_INET
        and not one.mark
        and not one.own
        and inside(one.source, packet.source)
        and inside(one.destination, packet.destination)
        and one.protocol in (0, packet.protocol)
        and one.source_port.first <= packet.source_port <= one.source_port.last
        and one.destination_port.first <= packet.destination_port <= one.destination_port.last
    )


def walk(wanted: RoutingPlan, packet: Packet) -> tuple[bool, int]:
    """Whether the packet is led into the TUN, as the kernel would find out, and how many rules it walked."""
    ordered = sorted(wanted.rules, key=lambda one: one.preference)
    at, walked = 0, 0
    while at < len(ordered):
        one = ordered[at]
        walked += 1
        at += 1
        if not rule_matches(one, packet):
            continue
        if one.action == FR_ACT_GOTO:
            at = next(place for place, other in enumerate(ordered) if other.preference == one.target)
        elif one.action == FR_ACT_TO_TBL and any(
            route.table == one.table and route.ifindex and inside(route.destination, packet.destination)
            for route in wanted.routes
        ):
            return True, walked
    return False, walked


def is_protected(rules: list[KernelRule], packet: Packet) -> bool:
    """By the first rule that matches; discarded packets may go either way, their policy blocks them."""
    for one in rules:
        if one.action is not Action.DISCARD and (
            any(inside(net, packet.source) for net in one.local)
            and any(inside(net, packet.destination) for net in one.remote)
            and one.protocol in (0, packet.protocol)
            and one.local_port.first <= packet.source_port <= one.local_port.last
            and one.remote_port.first <= packet.destination_port <= one.remote_port.last
        ):
            return one.action is Action.PROTECT
    return False


def random_rule(number: int, chance: random.Random) -> KernelRule:
    protocol = chance.choice((0, 6, 17))
    ports = [PortRange(), PortRange(first=5, last=9), PortRange(first=7, last=7)] if protocol else [PortRange()]
    return rule(
        number + 1,
        chance.choice((Action.BYPASS, Action.PROTECT, Action.PROTECT)),
        local=tuple(chance.sample(NETS, chance.randint(1, 2))),
        remote=tuple(chance.sample(NETS, chance.randint(1, 3))),
        protocol=protocol,
        local_port=chance.choice(ports),
        remote_port=chance.choice(ports),
    )


def address_of(net: str, chance: random.Random) -> ipaddress.IPv4Address:
    network = ipaddress.IPv4Network(net)
    return network[chance.randrange(network.num_addresses)]


@pytest.mark.parametrize("seed", range(20))
def test_a_planner_plans_as_if_each_policy_were_its_first(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(routes, "TABLE_FROM_REMOTES", 2 + seed % 2)
    monkeypatch.setattr(routes, "BLOCKS_FROM_RULES", 2)
    rules, planner = [random_rule(number, chance) for number in range(20)], routes.RoutePlanner()
    for _ in range(6):
        some = [one for one in rules if chance.random() < 0.7]
        moved = [replace(one, position=(one.position + 7) % 20) if chance.random() < 0.2 else one for one in some]
        addresses = chance.choice(([], [INSIDE], [ipaddress.ip_address("10.2.0.9"), INSIDE]))
        assert planner.plan(moved, addresses, TUN) == plan(moved, addresses, TUN)


@pytest.mark.parametrize("seed", range(40))
def test_routing_finds_what_the_spd_says(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether tables and blocks are used or not: here both are from two rules on."""
    chance = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr(routes, "TABLE_FROM_REMOTES", 2)
        monkeypatch.setattr(routes, "BLOCKS_FROM_RULES", 2)
    rules = [random_rule(number, chance) for number in range(chance.randint(1, 12))]
    wanted = plan(rules, [INSIDE], TUN)
    for _ in range(60):
        packet = Packet(
            source=address_of(chance.choice(NETS), chance),
            destination=address_of(chance.choice(NETS), chance),
            protocol=chance.choice((6, 17, 47)),
            source_port=chance.choice((5, 7, 10)),
            destination_port=chance.choice((5, 7, 10)),
        )
        assert walk(wanted, packet)[0] == is_protected(rules, packet), f"{packet} of {rules}"


def many(count: int, shared: bool) -> list[KernelRule]:
    """Rules with a local prefix of their own each, or one for all."""
    return [
        rule(
            number + 1,
            local=("10.9.0.0/16",) if shared else (f"10.{number >> 8}.{number & 255}.0/24",),
            remote=(f"172.{16 + (number >> 8)}.{number & 255}.0/24",),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_a_packet_walks_few_of_very_many_rules(shared: bool) -> None:
    rules = many(3000, shared)
    wanted = plan(rules, [INSIDE], TUN)
    for number in (0, 1700, 2999):
        source, destination = (
            ipaddress.IPv4Address(str(net.address)) for net in (*rules[number].local, *rules[number].remote)
        )
        packet = Packet(source=source, destination=destination, protocol=6, source_port=1, destination_port=2)
        led, walked = walk(wanted, packet)
        assert led
        assert walked < 250
        stranger = ipaddress.IPv4Address("192.0.2.1")
        led, walked = walk(wanted, replace(packet, source=stranger))
        assert not led
        assert walked < 250


@pytest.mark.parametrize("shared", [True, False])
def test_one_rule_more_or_less_among_many_moves_few(shared: bool) -> None:
    rules = many(3000, shared)
    before, after = (plan(some, [INSIDE], TUN) for some in (rules[:2000] + rules[2001:], rules))
    assert len(set(before.rules) ^ set(after.rules)) <= 2
    assert len(set(before.routes) ^ set(after.routes)) == 2


def test_very_many_bypass_and_protect_rules_are_planned_at_once() -> None:
    protects = many(3000, shared=False)
    bypasses = [
        rule(4000 + number, Action.BYPASS, local=one.local, remote=one.remote, protocol=6, position=0)
        for number, one in enumerate(protects)
    ]
    steps = plan([*bypasses, *protects], [INSIDE], TUN).rules
    assert sum(1 for one in steps if one.action == FR_ACT_GOTO) == 3001
