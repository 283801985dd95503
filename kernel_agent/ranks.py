"""Which number each rule of the SPD has in the kernel, so that few numbers change when rules come, go or move. Pure.

A rank grows with the order in the SPD and has gaps around it. A new rule takes a number from the gap where it belongs;
only where a gap is full do its nearest neighbours make room. Rules that moved are as few as can be: those outside a
longest run of rules whose ranks still rise.
"""

import bisect
import itertools
from collections.abc import Sequence

LAST_RANK = (1 << 28) - 3
"""Two more find place behind it, for what comes after all rules."""
SPACING = 4096
"""Between two rules of a fresh policy, where there is room."""
_ROOM = 8
"""Ranks for each rule where neighbours have to make room: so it is not needed again soon."""


def assign(present: Sequence[int]) -> list[int]:
    """A rank for each rule, rising in their order. `present` are those they have, 0 for a rule that has none.

    ValueError if there are more rules than ranks.
    """
    if len(present) > LAST_RANK // _ROOM:
        raise ValueError(f"more than {LAST_RANK // _ROOM} rules")
    kept = _rising(present)
    ranks = [rank if keep else 0 for rank, keep in zip(present, kept, strict=True)]
    start = 0
    while start < len(ranks):
        if ranks[start]:
            start += 1
            continue
        end = start
        while end < len(ranks) and not ranks[end]:
            end += 1
        _fill(ranks, start, end)
        start = end
    return ranks


def _rising(ranks: Sequence[int]) -> list[bool]:
    """Which rules are in a longest run of rising ranks (patience sorting); those without a rank are not."""
    given = [rank for rank in ranks if rank]
    if all(one < other for one, other in itertools.pairwise(given)):
        return [rank != 0 for rank in ranks]
    tails: list[int] = []
    tail_places: list[int] = []
    before = [-1] * len(ranks)
    for place, rank in enumerate(ranks):
        if not rank:
            continue
        length = bisect.bisect_left(tails, rank)
        before[place] = tail_places[length - 1] if length else -1
        if length == len(tails):
            tails.append(rank)
            tail_places.append(place)
        else:
            tails[length], tail_places[length] = rank, place
    kept = [False] * len(ranks)
    place = tail_places[-1]
    while place >= 0:
        kept[place] = True
        place = before[place]
    return kept


def _fill(ranks: list[int], start: int, end: int) -> None:
    """Gives ranks to start..end - 1, which have none; their neighbours make room if they must."""
    reach = 1
    while True:
        low = ranks[start - 1] if start else 0
        high = ranks[end] if end < len(ranks) else LAST_RANK + 1
        count = end - start
        if high - low > count * (_ROOM if reach > 1 else 1):
            break
        start, end = max(0, start - reach), min(len(ranks), end + reach)
        while end < len(ranks) and not ranks[end]:
            end += 1
        reach *= 2
    step = (high - low) // (count + 1)
    if end == len(ranks):
        step = min(step, SPACING)
    for number in range(count):
        ranks[start + number] = low + (number + 1) * max(1, step)
