"""Finds rules that can never match, because rules before them take every packet they speak of.

Each pair of a local and a remote prefix is looked up among the prefixes that contain it, so ten thousand rules cost
ten thousand look-ups and not fifty million comparisons. A rule counts as shadowed where each of its pairs is inside one
earlier rule. Rules with very many pairs, or very many rules on one pair, are not looked at: this is advice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ipc.types import Prefix
from policy_loader.addresses import Spans
from policy_loader.selectors import Selected

MOST_PAIRS_PER_RULE = 256
MOST_RULES_PER_PAIR = 32

_PrefixKey = tuple[int, int, int]
"""Version, length, and the bits of the prefix."""
_Pair = tuple[_PrefixKey, _PrefixKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """`rule` never matches; `earlier` is one that is in its way."""

    rule: Selected
    earlier: Selected


@dataclass(slots=True)
class _Remotes:
    lengths: set[tuple[int, int]] = field(default_factory=set)
    rules: dict[_PrefixKey, list[Selected]] = field(default_factory=dict)


def find(selected: Iterable[Selected]) -> list[Shadow]:
    """All rules of the SPD, given in order, that can never match."""
    index = _Index()
    found = []
    for one in selected:
        local, remote = _prefixes(one.sides.local), _prefixes(one.sides.remote)
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
        self._lengths: set[tuple[int, int]] = set()
        self._locals: dict[_PrefixKey, _Remotes] = {}

    def add(self, rule: Selected, pairs: list[_Pair]) -> None:
        for local, remote in pairs:
            self._lengths.add(local[:2])
            remotes = self._locals.setdefault(local, _Remotes())
            remotes.lengths.add(remote[:2])
            rules = remotes.rules.setdefault(remote, [])
            if len(rules) < MOST_RULES_PER_PAIR:
                rules.append(rule)

    def cover(self, rule: Selected, pairs: list[_Pair]) -> Selected | None:
        earlier = None
        for local, remote in pairs:
            earlier = self._covering(local, remote, rule)
            if earlier is None:
                return None
        return earlier

    def _covering(self, local: _PrefixKey, remote: _PrefixKey, rule: Selected) -> Selected | None:
        for outer_local in _containing(local, self._lengths):
            remotes = self._locals.get(outer_local)
            if remotes is None:
                continue
            for outer_remote in _containing(remote, remotes.lengths):
                for earlier in remotes.rules.get(outer_remote, ()):
                    if _covers(earlier, rule):
                        return earlier
        return None


def _prefixes(spans: Spans) -> list[_PrefixKey]:
    return [_key(prefix) for span in spans for prefix in span.prefixes]


def _key(prefix: Prefix) -> _PrefixKey:
    address = prefix.address
    return address.version, prefix.length, int(address) >> (address.max_prefixlen - prefix.length)


def _containing(key: _PrefixKey, lengths: set[tuple[int, int]]) -> Iterator[_PrefixKey]:
    version, length, bits = key
    for outer_version, outer_length in lengths:
        if outer_version == version and outer_length <= length:
            yield version, outer_length, bits >> (length - outer_length)


def _covers(earlier: Selected, later: Selected) -> bool:
    wide, narrow = earlier.rule.entry, later.rule.entry
    return (
        wide.protocol in (0, narrow.protocol)
        and wide.interface in ("", narrow.interface)
        and earlier.local_port.first <= later.local_port.first
        and earlier.local_port.last >= later.local_port.last
        and earlier.remote_port.first <= later.remote_port.first
        and earlier.remote_port.last >= later.remote_port.last
    )
