"""Applying a difference to what is present gives what was wanted, and touches nothing that is right already."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.reconcile import policy_diff, unnamed_sas
from kernel_agent.xfrm.messages import InstalledSa, PolicyEntry
from kernel_agent.xfrm.policies import BLOCKS, CARRIES, PLAIN, PRIORITIES_PER_RULE
from tests.kernel_agent.values import name_of, sa


def entries(policies: dict[int, int]) -> dict[bytes, PolicyEntry]:
    """Policies by key; the number says rank and kind."""
    return {
        bytes([key]): PolicyEntry(key, (number // 3 + 1) * PRIORITIES_PER_RULE + KINDS[number % 3], 0, b"")
        for key, number in policies.items()
    }


KINDS = (CARRIES, BLOCKS, PLAIN)
tables = st.dictionaries(st.integers(0, 30), st.integers(0, 30)).map(entries)


def steps(wanted: dict[bytes, PolicyEntry], present: dict[bytes, PolicyEntry]) -> Iterator[dict[bytes, PolicyEntry]]:
    """The table after each step of the way."""
    diff = policy_diff(wanted, present)
    now = dict(present)
    for key in (*diff.first, *diff.then, *diff.last):
        assert key not in now or not now[key].does_as(wanted[key])
        now[key] = wanted[key]
        yield dict(now)
    for key in diff.remove:
        del now[key]
        yield dict(now)


@given(tables, tables)
def test_applied_to_the_present_it_gives_the_wanted(
    wanted: dict[bytes, PolicyEntry], present: dict[bytes, PolicyEntry]
) -> None:
    result = [present, *steps(wanted, present)][-1]
    assert result.keys() == wanted.keys()
    assert all(result[key].does_as(entry) for key, entry in wanted.items())


@given(tables)
def test_nothing_is_done_where_all_is_right(wanted: dict[bytes, PolicyEntry]) -> None:
    assert not policy_diff(wanted, dict(wanted))


def carried(table: dict[bytes, PolicyEntry], matching: set[bytes]) -> bool | None:
    """Whether the first policy that matches a packet carries it as protected; None where two are equally first."""
    found = sorted(entry.priority for key, entry in table.items() if key in matching)
    if not found:
        return False
    if found[1:2] == found[:1]:
        return None
    return found[0] % PRIORITIES_PER_RULE == CARRIES


@given(tables, tables, st.sets(st.integers(0, 30)).map(lambda keys: {bytes([key]) for key in keys}))
def test_a_packet_that_is_protected_before_and_after_is_so_at_every_step(
    wanted: dict[bytes, PolicyEntry], present: dict[bytes, PolicyEntry], matching: set[bytes]
) -> None:
    """The packet is one that the policies of `matching` match."""
    if carried(present, matching) and carried(wanted, matching):
        assert all(carried(table, matching) is not False for table in steps(wanted, present))


def test_sas_that_nobody_named() -> None:
    present = [InstalledSa(name=name_of(sa(spi=spi)), rule_id=1) for spi in (1000, 2000)]
    assert unnamed_sas({name_of(sa(spi=1000))}, present) == (name_of(sa(spi=2000)),)
