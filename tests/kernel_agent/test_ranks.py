"""Ranks rise with the SPD's order, and few of them change."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kernel_agent import ranks


def rising(numbers: list[int]) -> bool:
    return all(one < other for one, other in zip([0, *numbers], [*numbers, ranks.LAST_RANK + 1], strict=True))


@given(st.lists(st.integers(0, 40) | st.integers(0, ranks.LAST_RANK)))
def test_whatever_there_was_ranks_rise_within_bounds(present: list[int]) -> None:
    assert rising(ranks.assign(present))


@given(st.lists(st.integers(1, ranks.LAST_RANK), unique=True).map(sorted), st.data())
def test_what_is_in_order_keeps_its_rank_whatever_goes(present: list[int], data: st.DataObject) -> None:
    left = [rank for rank in present if data.draw(st.booleans())]
    assert ranks.assign(present) == present
    assert ranks.assign(left) == left


def test_one_new_rule_changes_no_other() -> None:
    fresh = ranks.assign([0] * 1000)
    for place in (0, 1, 500, 999, 1000):
        new = ranks.assign([*fresh[:place], 0, *fresh[place:]])
        assert rising(new)
        assert [*new[:place], *new[place + 1 :]] == fresh


def test_one_rule_that_moves_changes_no_other() -> None:
    fresh = ranks.assign([0] * 1000)
    moved = [*fresh[1:700], fresh[0], *fresh[700:]]
    new = ranks.assign(moved)
    assert rising(new)
    assert sum(1 for old, now in zip(moved, new, strict=True) if old != now) == 1


def test_many_rules_at_one_place_cost_little_on_average() -> None:
    order = ranks.assign([0] * 1000)
    changed = 0
    for _ in range(300):
        wanted = [*order[:500], 0, *order[500:]]
        new = ranks.assign(wanted)
        assert rising(new)
        changed += sum(1 for old, now in zip(wanted, new, strict=True) if old and old != now)
        order = new
    assert changed < 300 * 20


def test_rules_at_random_places_hardly_ever_need_room() -> None:
    chance = random.Random(3)
    order = ranks.assign([0] * 2000)
    for _ in range(300):
        place = chance.randrange(len(order) + 1)
        wanted = [*order[:place], 0, *order[place:]]
        new = ranks.assign(wanted)
        assert sum(1 for old, now in zip(wanted, new, strict=True) if old and old != now) == 0
        order = new
