"""Applying a difference to what is present gives what was wanted, and touches nothing that is right already."""

from hypothesis import given
from hypothesis import strategies as st

from ipc.types import Direction
from kernel_agent.reconcile import policy_diff, set_diff, unnamed_sas
from kernel_agent.xfrm.constants import PolicyAction
from kernel_agent.xfrm.messages import InstalledPolicy, InstalledSa, Policy
from tests.kernel_agent.values import name_of, sa


def a_policy(key: int, priority: int) -> Policy:
    return Policy(
        direction=Direction(key % 3),
        selector=key.to_bytes(56, "big"),
        mark=bytes(8),
        priority=priority,
        action=PolicyAction.ALLOW,
        template=b"",
    )


tables = st.dictionaries(st.integers(0, 30), st.integers(0, 3)).map(
    lambda table: {one.key: one for one in (a_policy(key, priority) for key, priority in table.items())}
)


@given(tables, tables)
def test_applied_to_the_present_it_gives_the_wanted(wanted: dict[bytes, Policy], present: dict[bytes, Policy]) -> None:
    installed = [InstalledPolicy(index=number, policy=one) for number, one in enumerate(present.values())]
    diff = policy_diff(wanted, installed)
    result = dict(present)
    for gone in diff.remove:
        del result[gone.policy.key]
    for policy in diff.change:
        assert result[policy.key] != policy
        result[policy.key] = policy
    for policy in diff.add:
        assert policy.key not in result
        result[policy.key] = policy
    assert result == wanted


@given(tables)
def test_nothing_is_done_where_all_is_right(wanted: dict[bytes, Policy]) -> None:
    installed = [InstalledPolicy(index=number, policy=one) for number, one in enumerate(wanted.values())]
    assert not policy_diff(wanted, installed)


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20), unique=True))
def test_sets(wanted: list[int], present: list[int]) -> None:
    diff = set_diff(wanted, present)
    assert set(present) - set(diff.remove) | set(diff.add) == set(wanted)
    assert not set(diff.add) & set(present)
    assert bool(diff) == (set(wanted) != set(present))


def test_sas_that_nobody_named() -> None:
    present = [InstalledSa(name=name_of(sa(spi=spi)), rule_id=1) for spi in (1000, 2000)]
    assert unnamed_sas({name_of(sa(spi=1000))}, present) == (name_of(sa(spi=2000)),)
