"""Which rules and routes lead into the TUN: the SPD's first match, in the words of policy routing."""

import ipaddress
import socket

import pytest
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_TO_TBL

from ipc.ownership import OUTER_MARK, RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST
from ipc.types import Action, PortRange
from kernel_agent.data_path import DataPathError
from kernel_agent.routes import Route, RoutingRule, plan
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
    assert [(one.preference - RULE_PREFERENCE_FIRST, one.action, str(one.destination)) for one in steps] == [
        (1, FR_ACT_GOTO, "10.2.0.0/24"),
        (2, FR_ACT_TO_TBL, "10.2.0.0/24"),
        (2, FR_ACT_TO_TBL, "10.3.0.0/24"),
    ]
    assert steps[0].source_port == PortRange(first=22, last=22)


def test_the_position_counts_and_not_the_order_of_arrival() -> None:
    bypass, protect = rule(1, Action.BYPASS, position=5), rule(2, position=6)
    assert plan([protect, bypass], [], TUN) == plan([bypass, protect], [], TUN)
    assert len(middle(plan([protect, bypass], [], TUN).rules)) == 2


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
