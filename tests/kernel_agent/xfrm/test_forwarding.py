"""What lets a gateway forward protected traffic where all else is dropped, and what it must not let through."""

from dataclasses import replace

from ipc.ownership import INNER_MARK
from ipc.types import Action, Direction
from kernel_agent import ranks
from kernel_agent.xfrm import messages, structs
from kernel_agent.xfrm.constants import PolicyAction, XfrmAttribute
from kernel_agent.xfrm.policies import INNER, PRIORITIES_PER_RULE, kernel_policies, userspace_policies
from kernel_agent.xfrm.structs import SA_INFO_BYTES, unpack_attributes
from tests.kernel_agent.values import rule, sa

UNMATCHED = replace(
    rule(9, Action.DISCARD, local=("0.0.0.0/0", "::/0"), remote=("0.0.0.0/0", "::/0"), position=9), unmatched=True
)


def test_forwarding_comes_behind_all_rules_and_before_what_no_rule_matches() -> None:
    for plan in (kernel_policies([rule(1), UNMATCHED]), userspace_policies([rule(1), UNMATCHED], 7)):
        passing = [one for one in plan.behind if one.action is PolicyAction.ALLOW]
        dropping = [one for one in plan.behind if one.action is PolicyAction.BLOCK]
        highest_of_rules = ranks.LAST_RANK * PRIORITIES_PER_RULE + PRIORITIES_PER_RULE - 1
        assert highest_of_rules < min(one.priority for one in passing)
        assert max(one.priority for one in passing) < min(one.priority for one in dropping)
        assert max(one.priority for one in dropping) < 1 << 32
        assert len(plan.ruled) == 1, "the rule for what no other matches has no rank"


def test_only_what_came_by_a_tunnel_leaves_without_a_rule() -> None:
    (forward, out) = kernel_policies([rule(1)]).behind
    assert (forward.direction, forward.mark) == (Direction.FORWARD, structs.NO_MARK)
    assert (out.direction, out.mark) == (Direction.OUT, INNER)


def test_nothing_is_forwarded_for_rules_that_protect_nothing_and_for_families_that_none_speaks_of() -> None:
    assert kernel_policies([rule(1, Action.BYPASS), rule(2, Action.DISCARD)]).behind == ()
    six = kernel_policies([rule(1, local=("fd01::/64",), remote=("fd02::/64",))]).behind
    assert {structs.unpack_selector(one.selector).source.address.version for one in six} == {6}


def test_what_an_inbound_sa_carries_gets_the_mark_and_nothing_else_does() -> None:
    for direction, expected in ((Direction.IN, 2), (Direction.OUT, 0)):
        body = messages.new_sa(sa(direction, 0x1000))
        marks = [
            one.value
            for one in unpack_attributes(body, SA_INFO_BYTES)
            if one.kind in (XfrmAttribute.SET_MARK, XfrmAttribute.SET_MARK_MASK)
        ]
        assert marks == [structs.pack_word(INNER_MARK)] * expected
