"""Finds rules that can never match, because rules before them take every packet they speak of.

Each pair of a local and a remote prefix is looked up among the prefixes that contain it, so ten thousand rules cost
ten thousand look-ups and not fifty million comparisons. A rule counts as shadowed where each of its pairs is inside one
earlier rule. Rules with very many pairs, or very many rules on one pair, are not looked at: this is advice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ipc.types import Prefix
from policy_loader.model import Rule
from policy_loader.selectors import Selected, Sides

MOST_PAIRS_PER_RULE = 256
MOST_RULES_PER_PAIR = 32

_PrefixKey = tuple[int, int, int]
"""Version, length, and the bits of the prefix."""
_Pair = tuple[_PrefixKey, _PrefixKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """`rule` never matches; `earlier` is one that is in its way."""

    rule: Rule
    earlier: Rule


@dataclass(slots=True)
class _Remotes:
    lengths: set[tuple[int, int]] = field(default_factory=set)
    rules: dict[_PrefixKey, list[Rule]] = field(default_factory=dict)


def find(selected: Iterable[Selected]) -> list[Shadow]:
    """All rules of the SPD, given in order, that can never match."""
    index = _Index()
    found = []
    for one in selected:
        if not one.sides.local or len(one.sides.local) * len(one.sides.remote) > MOST_PAIRS_PER_RULE:
            continue
        pairs = list(_pairs(one.sides))
        earlier = index.cover(one.rule, pairs)
        if earlier is None:
            index.add(one.rule, pairs)
        else:
            found.append(Shadow(rule=one.rule, earlier=earlier))
    return found


class _Index:
    def __init__(self) -> None:
        self._lengths: set[tuple[int, int]] = set()
        self._locals: dict[_PrefixKey, _Remotes] = {}

    def add(self, rule: Rule, pairs: list[_Pair]) -> None:
        for local, remote in pairs:
            self._lengths.add(local[:2])
            remotes = self._locals.setdefault(local, _Remotes())
            remotes.lengths.add(remote[:2])
            rules = remotes.rules.setdefault(remote, [])
            if len(rules) < MOST_RULES_PER_PAIR:
                rules.append(rule)

    def cover(self, rule: Rule, pairs: list[_Pair]) -> Rule | None:
        earlier = None
        for local, remote in pairs:
            earlier = self._covering(local, remote, rule)
            if earlier is None:
                return None
        return earlier

    def _covering(self, local: _PrefixKey, remote: _PrefixKey, rule: Rule) -> Rule | None:
        for outer_local in _containing(local, self._lengths):
            remotes = self._locals.get(outer_local)
            if remotes is None:
                continue
            for outer_remote in _containing(remote, remotes.lengths):
                for earlier in remotes.rules.get(outer_remote, ()):
                    if _covers(earlier, rule):
                        return earlier
        return None


def _pairs(sides: Sides) -> Iterator[_Pair]:
    remotes = [_key(prefix) for prefix in sides.remote]
    for prefix in sides.local:
        local = _key(prefix)
        for remote in remotes:
            if remote[0] == local[0]:
                yield local, remote


def _key(prefix: Prefix) -> _PrefixKey:
    address = prefix.address
    return address.version, prefix.length, int(address) >> (address.max_prefixlen - prefix.length)


def _containing(key: _PrefixKey, lengths: set[tuple[int, int]]) -> Iterator[_PrefixKey]:
    version, length, bits = key
    for outer_version, outer_length in lengths:
        if outer_version == version and outer_length <= length:
            yield version, outer_length, bits >> (length - outer_length)


def _covers(earlier: Rule, rule: Rule) -> bool:
    wide, narrow = earlier.entry, rule.entry
    return (
        wide.protocol in (0, narrow.protocol)
        and wide.local_port.first <= narrow.local_port.first
        and wide.local_port.last >= narrow.local_port.last
        and wide.remote_port.first <= narrow.remote_port.first
        and wide.remote_port.last >= narrow.remote_port.last
    )
