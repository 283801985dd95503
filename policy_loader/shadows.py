"""Finds rules that can never match, because rules before them take every packet they speak of.

Each pair of a local and a remote prefix is looked up among the prefixes that contain it, so ten thousand rules cost
ten thousand look-ups and not fifty million comparisons. A rule counts as shadowed where each of its pairs is inside one
earlier rule. Rules with very many pairs, or very many rules on one pair, are not looked at: this is advice.
"""

from collections.abc import Iterable, Iterator

from ipc.types import NextLayer
from ipc.value import value
from policy_loader.addresses import PrefixKey, Spans
from policy_loader.selectors import Selected

MOST_PAIRS_PER_RULE = 256
MOST_RULES_PER_PAIR = 32

_Pair = tuple[PrefixKey, PrefixKey]
_Lengths = dict[int, set[int]]
"""Prefix lengths in use, by IP version."""


@value
class Shadow:
    """`rule` never matches; `earlier` is one that is in its way."""

    rule: Selected
    earlier: Selected


def find(selected: Iterable[Selected]) -> list[Shadow]:
    """All rules of the SPD, given in order, that can never match."""
    index = _Index()
    found = []
    for one in selected:
        local, remote = _keys(one.sides.local), _keys(one.sides.remote)
        if not local or len(local) * len(remote) > MOST_PAIRS_PER_RULE:
            continue
        pairs = [(ours, theirs) for ours in local for theirs in remote if ours[0] == theirs[0]]
        earlier = index.cover(one, pairs)
        if earlier is None:
            index.add(one, pairs)
        else:
            found.append(Shadow(rule=one, earlier=earlier))
    return found


class _Index:
    def __init__(self) -> None:
        self._local_lengths: _Lengths = {4: set(), 6: set()}
        self._remote_lengths: _Lengths = {4: set(), 6: set()}
        self._rules: dict[PrefixKey, dict[PrefixKey, list[Selected]]] = {}

    def add(self, rule: Selected, pairs: list[_Pair]) -> None:
        for local, remote in pairs:
            self._local_lengths[local[0]].add(local[1])
            self._remote_lengths[remote[0]].add(remote[1])
            rules = self._rules.setdefault(local, {}).setdefault(remote, [])
            if len(rules) < MOST_RULES_PER_PAIR:
                rules.append(rule)

    def cover(self, rule: Selected, pairs: list[_Pair]) -> Selected | None:
        earlier = None
        for local, remote in pairs:
            earlier = self._covering(local, remote, rule)
            if earlier is None:
                return None
        return earlier

    def _covering(self, local: PrefixKey, remote: PrefixKey, rule: Selected) -> Selected | None:
        for outer_local in _containing(local, self._local_lengths):
            by_remote = self._rules.get(outer_local)
            if by_remote is None:
                continue
            for outer_remote in _containing(remote, self._remote_lengths):
                for earlier in by_remote.get(outer_remote, ()):
                    if _covers(earlier, rule):
                        return earlier
        return None


def _keys(spans: Spans) -> tuple[PrefixKey, ...]:
    return spans[0].keys if len(spans) == 1 else tuple(key for span in spans for key in span.keys)


def _containing(key: PrefixKey, lengths: _Lengths) -> Iterator[PrefixKey]:
    version, length, bits = key
    for outer in lengths[version]:
        if outer <= length:
            yield version, outer, bits >> (length - outer)


def _covers(earlier: Selected, later: Selected) -> bool:
    return earlier.rule.entry.interface in ("", later.rule.entry.interface) and all(
        any(_holds(wide, narrow) for wide in earlier.next_layers) for narrow in later.next_layers
    )


def _holds(wide: NextLayer, narrow: NextLayer) -> bool:
    return (
        wide.protocol in (0, narrow.protocol)
        and wide.local_port.first <= narrow.local_port.first
        and wide.local_port.last >= narrow.local_port.last
        and wide.remote_port.first <= narrow.remote_port.first
        and wide.remote_port.last >= narrow.remote_port.last
    )
