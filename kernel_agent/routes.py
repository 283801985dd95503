"""Rules and routes that lead protected traffic into the TUN of the user-space data path (ip-rule(8)). Pure.

Policy routing keeps the SPD's first match: our rules stand between RULE_PREFERENCE_FIRST and RULE_PREFERENCE_LAST.

    4500        fwmark OUTER_MARK goto 5499       our own ESP and IKE never enter the TUN
    4501        from LOCAL to REMOTE lookup 4500  PROTECT that no bypass rule before it concerns, in any order
                from LOCAL lookup TABLE           the same, where many REMOTEs share LOCAL, protocol and ports
    4502        from NET goto BLOCK               where there are many rules at 4501: those with LOCAL in NET are ...
    4503        goto 5399
    4504-5398   from LOCAL ... ; goto 5399        ... in a block of their own, so that a packet walks few of them
    5399        nop
    5400-5498   in SPD order: goto 5499 for BYPASS, where a later PROTECT would take the packet, and lookup for those
    5499        nop

Each REMOTE has two routes in its table: into the TUN, and behind it "unreachable", for when the TUN is gone: what was
led here finds the TUN or no way at all. For IPv6 that is all there is (see `xfrm.policies`), so what this host itself
sends to REMOTE comes here whatever its source, if the host has an address in LOCAL: what does not belong into the
tunnel is dropped by the data path then, instead of taking the ordinary route.

Where blocks stand and which tables there are follows from what they hold, so that a reload moves little. Only objects
with ROUTE_PROTOCOL are ever touched. ICMP types are no criterion here; the policies decide those.
"""

import bisect
import hashlib
import ipaddress
import itertools
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ipc.messages import KernelRule
from ipc.ownership import OUTER_MARK, ROUTE_TABLE, RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST
from ipc.types import ANY_PORT, Action, IpAddress, NextLayer, PortRange, Prefix
from ipc.value import value
from kernel_agent.data_path import DataPathError
from kernel_agent.last_result import LastResult, Remembered
from kernel_agent.rtnl import FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_TO_TBL
from kernel_agent.xfrm.messages import ICMP_PROTOCOLS

ANY_ORDER = RULE_PREFERENCE_FIRST + 1
_JUMPS = RULE_PREFERENCE_FIRST + 2
_PAST_BLOCKS = RULE_PREFERENCE_FIRST + 3
_BLOCKS = RULE_PREFERENCE_FIRST + 4
IN_ORDER = RULE_PREFERENCE_LAST - 100
"""The rules whose order matters come behind this one."""
TABLE_FROM_REMOTES = 8
"""From so many remote prefixes on, those of one local prefix have a table."""
BLOCKS_FROM_RULES = 64
_TABLE_BASE = 0x4900_0000
_FAMILIES = _AF_INET, _AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)


@value
class RoutingRule:
    """One of our policy routing rules; the fields are those of ip-rule(8)."""

    family: int
    preference: int
    action: int
    """FR_ACT_TO_TBL, FR_ACT_GOTO or FR_ACT_NOP."""
    source: Prefix | None = None
    destination: Prefix | None = None
    protocol: int = 0
    source_port: PortRange = ANY_PORT
    destination_port: PortRange = ANY_PORT
    mark: int = 0
    """A single bit that is value and mask at once; 0 for any."""
    own: bool = False
    """Only what this host itself sends."""
    table: int = ROUTE_TABLE
    """Of FR_ACT_TO_TBL."""
    target: int = RULE_PREFERENCE_LAST
    """The preference to go on at, of FR_ACT_GOTO."""

    def at(self, preference: int) -> "RoutingRule":
        """The same under another preference: `replace`, for very many."""
        return RoutingRule(
            family=self.family,
            preference=preference,
            action=self.action,
            source=self.source,
            destination=self.destination,
            protocol=self.protocol,
            source_port=self.source_port,
            destination_port=self.destination_port,
            mark=self.mark,
            own=self.own,
            table=self.table,
            target=self.target,
        )


@value
class Route:
    """One of our routes."""

    destination: Prefix
    ifindex: int
    """0 for the route that leads nowhere."""
    source: IpAddress | None
    table: int = ROUTE_TABLE


@value
class RoutingPlan:
    """All that should be there."""

    rules: tuple[RoutingRule, ...]
    routes: tuple[Route, ...]


NOTHING = RoutingPlan(rules=(), routes=())


def plan(rules: Iterable[KernelRule], own_addresses: Iterable[IpAddress], tun_ifindex: int) -> RoutingPlan:
    """The rules and routes for an SPD; DataPathError where it changes between PROTECT and BYPASS too often."""
    return RoutePlanner().plan(rules, own_addresses, tun_ifindex)


class RoutePlanner:
    """Plans the rules and routes of one SPD after another: what comes of a rule that was in the last is the same."""

    def __init__(self) -> None:
        self._remembered = Remembered()
        self._own = LastResult(_OwnAddresses)

    def plan(self, rules: Iterable[KernelRule], own_addresses: Iterable[IpAddress], tun_ifindex: int) -> RoutingPlan:
        """As the function of that name has it."""
        ordered = sorted((rule for rule in rules if rule.action is not Action.DISCARD), key=lambda rule: rule.position)
        own = self._own.of(tuple(own_addresses))
        wanted: list[RoutingRule] = []
        routes: _Routes = {}
        traffic = [one for rule in ordered for one in self._remembered.of(_traffic_of, rule)]
        for family in _FAMILIES:
            of_family = [one for one in traffic if one.family == family]
            middle = _Planner(family, own, routes, self._remembered).rules(of_family)
            if middle:
                wanted.append(_frame(family, RULE_PREFERENCE_FIRST, FR_ACT_GOTO, OUTER_MARK))
                wanted += middle
                wanted.append(_frame(family, RULE_PREFERENCE_LAST, FR_ACT_NOP))
        both_ways = [
            route
            for (table, _), lent in routes.items()
            for route in self._remembered.of(_both_ways, lent, table, tun_ifindex)
        ]
        self._remembered.end_round()
        return RoutingPlan(rules=tuple(_each_once(wanted)), routes=tuple(both_ways))


def _each_once(rules: Iterable[RoutingRule]) -> Iterator[RoutingRule]:
    """Only those for packets without a source address can be there twice: of two local prefixes, to one remote one."""
    seen: set[RoutingRule] = set()
    for rule in rules:
        source = rule.source
        if rule.own or (
            source is not None and source.length == source.address.max_prefixlen and not int(source.address)
        ):
            if rule in seen:
                continue
            seen.add(rule)
        yield rule


def _both_ways(lent: "_Lent", table: int, tun_ifindex: int) -> tuple[Route, Route]:
    return (
        Route(destination=lent.remote, ifindex=tun_ifindex, source=lent.source, table=table),
        Route(destination=lent.remote, ifindex=0, source=None, table=table),
    )


def _frame(family: int, preference: int, action: int, mark: int = 0, target: int = RULE_PREFERENCE_LAST) -> RoutingRule:
    return RoutingRule(family=family, preference=preference, action=action, mark=mark, target=target)


@value
class _Traffic:
    """A pair of prefixes of a rule, with its protocol and ports: what one routing rule can say."""

    family: int
    action: int
    local: Prefix
    remote: Prefix
    protocol: int
    local_port: PortRange
    remote_port: PortRange
    position: int
    group: tuple[int, ...]
    """Local prefix, protocol and ports: as numbers, which are hashed in a fifth of the time."""
    remote_key: "_Key"


@value
class _Lent:
    """A remote prefix, and the source address that is lent for it."""

    remote: Prefix
    source: IpAddress | None


_Key = tuple[int, int, int]
"""Version, address and length of a prefix."""
_Routes = dict[tuple[int, _Key], _Lent]
"""By table and remote prefix."""


def _key(prefix: Prefix) -> _Key:
    return prefix.address.version, int(prefix.address), prefix.length


class _Planner:
    """The rules of one family; `routes` gathers remote prefixes by table, with the source address they lend."""

    def __init__(self, family: int, own: "_OwnAddresses", routes: _Routes, remembered: Remembered) -> None:
        self._family = family
        self._own = own
        self._routes = routes
        self._remembered = remembered

    def rules(self, traffic: Sequence[_Traffic]) -> list[RoutingRule]:
        """All of them, for `traffic` in the SPD's order."""
        protected = [one for one in traffic if one.action == FR_ACT_TO_TBL]
        bypassed = [one for one in traffic if one.action == FR_ACT_GOTO]
        if not protected:
            return []
        behind = self._behind_bypass(protected, bypassed) if bypassed else set()
        free = [one for one in protected if id(one) not in behind]
        wanted = list(_in_blocks(self._family, list(self._in_any_order(free)), self._remembered))
        in_order = sorted((one for one in traffic if id(one) in behind), key=lambda one: one.position)
        if in_order:
            wanted.append(_frame(self._family, IN_ORDER, FR_ACT_NOP))
            wanted += _numbered(step for one in in_order for step in self._steps(one))
        return wanted

    def _behind_bypass(self, protected: list[_Traffic], bypassed: list[_Traffic]) -> set[int]:
        """Ids of what must stand in SPD order: a bypass that a later protect rule overlaps, and such protect rules."""
        behind = set()
        by_remote = _ByRemote(bypassed)
        concerned = set()
        for one in protected:
            for other in by_remote.overlapping(one):
                if id(other) in concerned and id(one) in behind:
                    continue
                if other.position < one.position and self._overlap(other, one):
                    behind.add(id(one))
                    concerned.add(id(other))
                    if len(concerned) == len(bypassed):
                        break
        return behind | concerned

    def _overlap(self, bypass: _Traffic, protect: _Traffic) -> bool:
        return (
            (_prefixes_overlap(bypass.local, protect.local) or (self._is_wide(protect)))
            and _prefixes_overlap(bypass.remote, protect.remote)
            and (not bypass.protocol or not protect.protocol or bypass.protocol == protect.protocol)
            and _ports_overlap(bypass.local_port, protect.local_port)
            and _ports_overlap(bypass.remote_port, protect.remote_port)
        )

    def _is_wide(self, protect: _Traffic) -> bool:
        """Whether all that this host sends to the remote prefix is led into the TUN (`_unbound`, IPv6)."""
        return self._family == socket.AF_INET6 and self._own.within(protect.local) is not None

    def _in_any_order(self, protected: Iterable[_Traffic]) -> Iterator[RoutingRule]:
        """Those with the same local prefix, protocol and ports gathered into a table, where they are many."""
        groups: dict[tuple[int, ...], list[_Traffic]] = {}
        for one in protected:
            groups.setdefault(one.group, []).append(one)
        tables = _Tables()
        for group in groups.values():
            if len(group) < TABLE_FROM_REMOTES:
                for one in group:
                    yield from self._steps(one)
                continue
            table = tables.of(group[0])
            for one in group:
                self._add_route(table, one)
            for step in _with_unbound(group[0], self._family, table, self._own):
                yield replace(step, destination=None)

    def _steps(self, one: _Traffic) -> tuple[RoutingRule, ...]:
        if one.action == FR_ACT_GOTO:
            return (_step(self._family, one, ROUTE_TABLE),)
        self._add_route(ROUTE_TABLE, one)
        return self._remembered.of(_with_unbound, one, self._family, ROUTE_TABLE, self._own)

    def _add_route(self, table: int, one: _Traffic) -> None:
        """The first rule that has an address of ours in its local prefix lends it as the source."""
        key = (table, one.remote_key)
        present = self._routes.get(key)
        if present is None or present.source is None:
            self._routes[key] = self._remembered.of(_lent, one, self._own)


def _with_unbound(one: _Traffic, family: int, table: int, own: "_OwnAddresses") -> tuple[RoutingRule, ...]:
    """Its step, and one for sockets that have no source address yet, where we have one to give them.

    IPv6 rules can't ask for that.
    """
    step = _step(family, one, table)
    if step.source is None or own.within(one.local) is None:
        return (step,)
    is_v4 = family == socket.AF_INET
    unspecified = Prefix(address=ipaddress.IPv4Address(0), length=32) if is_v4 else None
    return step, replace(step, source=unspecified, own=not is_v4, source_port=ANY_PORT)


def _lent(one: _Traffic, own: "_OwnAddresses") -> _Lent:
    return _Lent(remote=one.remote, source=own.within(one.local))


def _traffic_of(rule: KernelRule) -> tuple[_Traffic, ...]:
    layers: Iterable[NextLayer] = map(_without_icmp_type, rule.next_layers)
    layers = dict.fromkeys(layers) if rule.also else tuple(layers)
    return tuple(
        [
            _traffic(rule, local, remote, layer)
            for local in rule.local
            for remote in rule.remote
            if local.address.version == remote.address.version
            for layer in layers
        ]
    )


def _traffic(rule: KernelRule, local: Prefix, remote: Prefix, layer: NextLayer) -> _Traffic:
    ours, theirs = layer.local_port, layer.remote_port
    return _Traffic(
        family=_AF_INET if local.address.version == 4 else _AF_INET6,
        action=FR_ACT_TO_TBL if rule.action is Action.PROTECT else FR_ACT_GOTO,
        local=local,
        remote=remote,
        protocol=layer.protocol,
        local_port=ours,
        remote_port=theirs,
        position=rule.position,
        group=(*_key(local), layer.protocol, ours.first, ours.last, theirs.first, theirs.last),
        remote_key=_key(remote),
    )


def _without_icmp_type(layer: NextLayer) -> NextLayer:
    return NextLayer(protocol=layer.protocol) if layer.protocol in ICMP_PROTOCOLS else layer


def _step(family: int, one: _Traffic, table: int) -> RoutingRule:
    return RoutingRule(
        family=family,
        preference=ANY_ORDER,
        action=one.action,
        source=one.local if one.local.length else None,
        destination=one.remote if one.remote.length else None,
        protocol=one.protocol,
        source_port=one.local_port,
        destination_port=one.remote_port,
        table=table,
    )


def _numbered(steps: Iterator[RoutingRule]) -> Iterator[RoutingRule]:
    preference = IN_ORDER
    for _, group in itertools.groupby(steps, key=lambda step: step.action):
        preference += 1
        if preference >= RULE_PREFERENCE_LAST:
            raise DataPathError(
                "bypass and protect rules that overlap alternate too often for the user-space data path; "
                "put the bypass rules first"
            )
        for step in group:
            yield step.at(preference)


# ------------------------------------------------------------- many rules


def _in_blocks(family: int, steps: list[RoutingRule], remembered: Remembered) -> Iterator[RoutingRule]:
    """Steps whose order is no matter; many are put into blocks by their source."""
    length = _block_length(steps)
    blocks: dict[int, list[RoutingRule]] = {}
    for step in steps:
        source = step.source
        # What has no source, or a source shorter than a block, could be anywhere, and so is looked at first.
        if not length or source is None or source.length < length:
            yield step
        else:
            blocks.setdefault(int(source.address) >> (source.address.max_prefixlen - length), []).append(step)
    if not blocks:
        return
    yield _frame(family, _PAST_BLOCKS, FR_ACT_GOTO, target=IN_ORDER)
    yield _frame(family, IN_ORDER, FR_ACT_NOP)
    for number, members in blocks.items():
        is_v4 = family == socket.AF_INET
        address = (
            ipaddress.IPv4Address(number << 32 - length) if is_v4 else ipaddress.IPv6Address(number << 128 - length)
        )
        net = Prefix(address=address, length=length)
        # Two nets at one place are no harm: a packet walks both, and each rule names its whole source.
        start = _BLOCKS + 2 * (_digest(net.address.packed, 4) % ((IN_ORDER - _BLOCKS) // 2))
        yield RoutingRule(family=family, preference=_JUMPS, action=FR_ACT_GOTO, source=net, target=start)
        for step in members:
            yield remembered.of(RoutingRule.at, step, start)
        yield _frame(family, start + 1, FR_ACT_GOTO, target=IN_ORDER)


def _block_length(steps: list[RoutingRule]) -> int:
    """The prefix length by which blocks are made: few jumps, and few rules in a block. 0 for none."""
    sources = [step.source for step in steps if step.source is not None]
    if len(sources) <= BLOCKS_FROM_RULES:
        return 0
    bits = sources[0].address.max_prefixlen
    numbers = [(int(one.address), one.length) for one in sources]
    best, least = 0, len(steps)
    for length in range(bits // 8, bits + 1, bits // 16):
        sizes = Counter(number >> (bits - length) for number, own in numbers if own >= length)
        outside = len(steps) - sizes.total()
        walked = outside + len(sizes) + max(sizes.values(), default=0)
        if walked < least:
            best, least = length, walked
    return best


class _Tables:
    """Numbers of tables, which follow from what is led there."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def of(self, one: _Traffic) -> int:
        """A table for all with the same local prefix, protocol and ports."""
        ports = (one.local_port.first, one.local_port.last, one.remote_port.first, one.remote_port.last)
        text = f"{one.local} {one.protocol} {ports}"
        table = _TABLE_BASE + _digest(text.encode(), 3)
        while table in self._taken:
            table += 1
        self._taken.add(table)
        return table


def _digest(data: bytes, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=size).digest(), "big")


# ------------------------------------------------------------- addresses


class _OwnAddresses:
    """The addresses of this host, by number."""

    def __init__(self, addresses: Iterable[IpAddress]) -> None:
        ordered = sorted(addresses, key=int)
        self._addresses = {version: [one for one in ordered if one.version == version] for version in (4, 6)}
        self._numbers = {version: [int(one) for one in found] for version, found in self._addresses.items()}

    def within(self, prefix: Prefix) -> IpAddress | None:
        """The lowest address in `prefix`, if there is one."""
        numbers = self._numbers[prefix.address.version]
        first, last = _range(prefix)
        place = bisect.bisect_left(numbers, first)
        if place == len(numbers) or numbers[place] > last:
            return None
        return self._addresses[prefix.address.version][place]


class _ByRemote:
    """Traffic by its remote prefix: finds what overlaps a prefix, without looking at all of it."""

    def __init__(self, traffic: Iterable[_Traffic]) -> None:
        self._sorted = sorted(traffic, key=lambda one: int(one.remote.address))
        self._firsts = [int(one.remote.address) for one in self._sorted]
        self._exact: dict[tuple[int, int], list[_Traffic]] = {}
        for one in self._sorted:
            self._exact.setdefault((one.remote.length, int(one.remote.address)), []).append(one)
        self._lengths = sorted({one.remote.length for one in self._sorted})

    def overlapping(self, one: _Traffic) -> Iterator[_Traffic]:
        """What has a remote prefix that holds that of `one`, or lies within it."""
        first, last = _range(one.remote)
        bits = one.remote.address.max_prefixlen
        for length in self._lengths:
            if length < one.remote.length:
                drop = bits - length
                yield from self._exact.get((length, first >> drop << drop), ())
        for place in range(bisect.bisect_left(self._firsts, first), bisect.bisect_right(self._firsts, last)):
            if self._sorted[place].remote.length >= one.remote.length:
                yield self._sorted[place]


def _range(prefix: Prefix) -> tuple[int, int]:
    first = int(prefix.address)
    return first, first + (1 << (prefix.address.max_prefixlen - prefix.length)) - 1


def _prefixes_overlap(one: Prefix, other: Prefix) -> bool:
    drop = one.address.max_prefixlen - min(one.length, other.length)
    return int(one.address) >> drop == int(other.address) >> drop


def _ports_overlap(one: PortRange, other: PortRange) -> bool:
    return one.first <= other.last and other.first <= one.last
