"""Rules of the SPD as XFRM policies, for both data paths. Pure.

Rule order becomes priority, and the lower number wins: a rule has the PRIORITIES_PER_RULE numbers from its rank on
(`kernel_agent.ranks`). Which of them a policy has says what it is for; here `Policy.priority` is that number alone.
"""

import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from ipc.messages import KernelRule
from ipc.ownership import INNER_MARK, INTERFACE_MARK_MASK, interface_mark
from ipc.types import ANY_PORT, Action, Direction, IpAddress, Mode, NextLayer, PortRange, Prefix
from ipc.value import value
from kernel_agent.last_result import LastOfEach
from kernel_agent.xfrm import structs
from kernel_agent.xfrm.constants import PolicyAction
from kernel_agent.xfrm.messages import ICMP_PROTOCOLS, Policy, icmp_masks, port_masks, reqid_of
from kernel_agent.xfrm.structs import MaskedPort

PRIORITIES_PER_RULE = 16
CARRIES, BLOCKS, PLAIN = 4, 8, 12
"""What a policy of a rule is for: protected traffic; what of it is in clear; all that is bypassed or discarded."""
_EXEMPT_PRIORITY = 1
_FORWARDED = 0xFFFF_FFE0 | CARRIES
"""Behind all rules: what is on its way into a tunnel or has come out of one, and is forwarded."""
_UNMATCHED = 0xFFFF_FFF0
"""Behind that: the rule for what no other matches."""
_NEIGHBOUR_DISCOVERY_TYPES = PortRange(first=133 << 8, last=137 << 8 | 255)
"""ICMPv6 types 133 to 137 (RFC 4861 section 4), any code."""
_ANY_IPV6 = Prefix(address=ipaddress.IPv6Address(0), length=0)
_ANY_IPV4 = Prefix(address=ipaddress.IPv4Address(0), length=0)
_IPV6_LOOPBACK = Prefix(address=ipaddress.IPv6Address(1), length=128)
_NO_INTERFACES: Mapping[str, int] = MappingProxyType({})
INNER = structs.pack_mark(INNER_MARK, INNER_MARK)


@value
class PolicyPlan:
    """All policies that should be there."""

    exempt: tuple[Policy, ...]
    """Before all rules; their priority is final."""
    ruled: tuple[tuple[Policy, ...], ...]
    """Those of each rule, in SPD order; their priority counts from the rule's rank."""
    behind: tuple[Policy, ...] = ()
    """After all rules; their priority is final."""


@value
class Flow:
    """What one policy can say of a rule: a pair of prefixes and of masked ports, as packets that leave have them."""

    local: Prefix
    remote: Prefix
    protocol: int
    source_port: MaskedPort
    destination_port: MaskedPort


def flows_of(rule: KernelRule) -> Iterator[Flow]:
    """Every flow of a rule: prefix pairs of one family, times protocols with pairs of (port, mask)."""
    layers: Iterable[KernelRule | NextLayer] = rule.next_layers if rule.also else (rule,)
    ports = [one for layer in layers for one in _ported(layer)]
    for local in rule.local:
        for remote in rule.remote:
            if local.address.version != remote.address.version:
                continue
            for pair in ports:
                yield Flow(
                    local=local,
                    remote=remote,
                    protocol=pair.protocol,
                    source_port=pair.source,
                    destination_port=pair.destination,
                )


def selector_of(flow: Flow, direction: Direction, ifindex: int = 0) -> bytes:
    """The packed selector of a flow: turned round for packets that come in or are forwarded in."""
    outward = direction is Direction.OUT
    # ICMP type and code stand in the same places whichever way the packet goes.
    keep_ports = outward or flow.protocol in ICMP_PROTOCOLS
    return structs.pack_selector_of(
        flow.local if outward else flow.remote,
        flow.remote if outward else flow.local,
        flow.protocol,
        flow.source_port if keep_ports else flow.destination_port,
        flow.destination_port if keep_ports else flow.source_port,
        ifindex,
    )


class Planner:
    """Plans the policies of one SPD after another. For a rule that was in the last one there is no work."""

    def __init__(self) -> None:
        self._by_kernel: LastOfEach[KernelRule, tuple[Policy, ...]] = LastOfEach(_by_kernel)
        self._around_tun: LastOfEach[KernelRule, tuple[Policy, ...]] = LastOfEach(_by_userspace)

    def kernel_policies(self, rules: Iterable[KernelRule], interfaces: Mapping[str, int]) -> PolicyPlan:
        """As the function of that name has it."""
        ordered = tuple(rules)
        return _plan(ordered, self._by_kernel.of(_matched(ordered), interfaces))

    def userspace_policies(
        self, rules: Iterable[KernelRule], tun_ifindex: int, interfaces: Mapping[str, int]
    ) -> PolicyPlan:
        """As the function of that name has it."""
        ordered = tuple(rules)
        return _plan(ordered, self._around_tun.of(_matched(ordered), tun_ifindex, interfaces))


def kernel_policies(rules: Iterable[KernelRule], interfaces: Mapping[str, int] = _NO_INTERFACES) -> PolicyPlan:
    """The policies of the kernel's ESP: out, in and forward for each flow, with templates for PROTECT.

    `interfaces` has the index of each interface that a rule names.
    """
    return Planner().kernel_policies(rules, interfaces)


def userspace_policies(
    rules: Iterable[KernelRule], tun_ifindex: int, interfaces: Mapping[str, int] = _NO_INTERFACES
) -> PolicyPlan:
    """The policies around the TUN device: protected traffic passes only through it, in clear it is blocked.

    Bypass and discard as with the kernel's ESP.
    """
    return Planner().userspace_policies(rules, tun_ifindex, interfaces)


def _plan(rules: tuple[KernelRule, ...], ruled: tuple[tuple[Policy, ...], ...]) -> PolicyPlan:
    return PolicyPlan(exempt=_exempt_from(rules), ruled=ruled, behind=(*_forwarded(rules), *_unmatched(rules)))


def _matched(rules: tuple[KernelRule, ...]) -> Iterator[KernelRule]:
    return (rule for rule in rules if not rule.unmatched)


def _by_kernel(rule: KernelRule, interfaces: Mapping[str, int]) -> tuple[Policy, ...]:
    return _plain(rule, interfaces.get(rule.interface, 0))


def _by_userspace(rule: KernelRule, tun_ifindex: int, interfaces: Mapping[str, int]) -> tuple[Policy, ...]:
    ifindex = interfaces.get(rule.interface, 0)
    return _around_tun(rule, tun_ifindex, ifindex) if rule.action is Action.PROTECT else _plain(rule, ifindex)


def _came_in_by(ifindex: int) -> bytes:
    """The packet mark of what came in by an interface that a rule names (`kernel_agent.netfilter`); 0 for any."""
    return structs.pack_mark(interface_mark(ifindex), INTERFACE_MARK_MASK) if ifindex else structs.NO_MARK


def exempt() -> Iterator[Policy]:
    """IPv6 that no rule should stop: neighbour discovery, and ::1 speaking to itself.

    Without neighbour discovery no host on the same link can be reached, and so no tunnel to it can come up. It never
    leaves the link (RFC 4861 section 11.2), and is not forwarded. The kernel exempts the loopback device for IPv4
    only; a packet with ::1 that comes from a wire is none that it takes (RFC 4291 section 2.5.3).
    """
    flows = [
        Flow(local=_ANY_IPV6, remote=_ANY_IPV6, protocol=socket.IPPROTO_ICMPV6, source_port=kind, destination_port=code)
        for kind, code in map(icmp_masks, port_masks(_NEIGHBOUR_DISCOVERY_TYPES))
    ]
    anything = structs.ANY_MASKED_PORT
    flows.append(
        Flow(local=_IPV6_LOOPBACK, remote=_IPV6_LOOPBACK, protocol=0, source_port=anything, destination_port=anything)
    )
    for flow in flows:
        for direction in (Direction.OUT, Direction.IN):
            yield Policy(
                direction=direction,
                selector=selector_of(flow, direction),
                mark=structs.NO_MARK,
                priority=_EXEMPT_PRIORITY,
                action=PolicyAction.ALLOW,
                template=b"",
            )


def _forwarded(rules: tuple[KernelRule, ...]) -> Iterator[Policy]:
    """Lets a gateway forward protected traffic where all else is blocked, by a rule or in secure mode.

    The kernel looks for a policy twice: as if the packet had come in for us, and as it leaves. One that no rule is
    about as it comes in passes the former, and the latter alone decides. One that has come out of a tunnel was checked
    by the former, and passes the latter by its mark where no rule is about it: a rule may drop it, or lead it into
    another tunnel.
    """
    protecting = [rule for rule in rules if rule.action is Action.PROTECT]
    for version in sorted({prefix.address.version for rule in protecting for prefix in rule.local}):
        anything = _ANY_IPV6 if version == 6 else _ANY_IPV4
        no_port = structs.ANY_MASKED_PORT
        every = Flow(local=anything, remote=anything, protocol=0, source_port=no_port, destination_port=no_port)
        for direction, mark in ((Direction.FORWARD, structs.NO_MARK), (Direction.OUT, INNER)):
            yield Policy(
                direction=direction,
                selector=selector_of(every, direction),
                mark=mark,
                priority=_FORWARDED,
                action=PolicyAction.ALLOW,
                template=b"",
            )


def _unmatched(rules: tuple[KernelRule, ...]) -> Iterator[Policy]:
    for rule in rules:
        if rule.unmatched:
            yield from (replace(policy, priority=_UNMATCHED + policy.priority) for policy in _plain(rule, 0))


def _exempt_from(rules: tuple[KernelRule, ...]) -> tuple[Policy, ...]:
    """Before all rules, where one is about IPv6, or its tunnel goes by IPv6."""
    return tuple(exempt()) if any(_speaks_of_ipv6(rule) for rule in rules) else ()


def _speaks_of_ipv6(rule: KernelRule) -> bool:
    by_ipv6 = rule.peer_address is not None and rule.peer_address.version == 6
    return by_ipv6 or any(prefix.address.version == 6 for prefix in rule.local)


def _plain(rule: KernelRule, ifindex: int) -> tuple[Policy, ...]:
    """One policy for each flow and direction.

    With an interface, what goes out is told by the selector, what comes in by the mark: there the kernel looks for the
    interface on which it hands the packet on. For IPv6 that this host itself sends it does not know the interface yet:
    rules that protect or discard take such packets on any, a bypass rule on none.
    """
    protects, bypasses = rule.action is Action.PROTECT, rule.action is Action.BYPASS
    action = PolicyAction.BLOCK if rule.action is Action.DISCARD else PolicyAction.ALLOW
    came_in = _came_in_by(ifindex)
    templates = _Templates(rule) if protects else None
    policies = []
    for flow in flows_of(rule):
        by_selector = ifindex if bypasses or flow.local.address.version == 4 else 0
        outward, inward = selector_of(flow, Direction.OUT, by_selector), selector_of(flow, Direction.IN)
        for direction in _DIRECTIONS:
            is_out = direction is Direction.OUT
            policies.append(
                Policy(
                    direction=direction,
                    selector=outward if is_out else inward,
                    mark=structs.NO_MARK if is_out else came_in,
                    priority=CARRIES if protects else PLAIN,
                    action=action,
                    template=templates.of(flow, is_out) if templates else b"",
                )
            )
    return tuple(policies)


def _around_tun(rule: KernelRule, tun_ifindex: int, ifindex: int) -> tuple[Policy, ...]:
    """Allowed through the TUN, blocked elsewhere.

    But for IPv6 going out: when the kernel looks for the policy of what this host itself sends, it does not know the
    interface yet (for IPv4 it does), so a policy that names one never matches. There `routes.py` alone sees to it that
    the packet finds the TUN or no way at all.

    A rule's interface counts for what comes in. What goes out is led to the TUN before it could be known where else it
    would have left, so it is protected on any.
    """
    came_in = _came_in_by(ifindex)
    policies = []
    for flow in flows_of(rule):
        anywhere, inward = selector_of(flow, Direction.OUT), selector_of(flow, Direction.IN)
        if flow.local.address.version == 6:
            policies.append(_passing(Direction.OUT, anywhere, structs.NO_MARK))
        else:
            policies.append(_passing(Direction.OUT, structs.with_ifindex(anywhere, tun_ifindex), structs.NO_MARK))
            policies.append(_blocking(Direction.OUT, anywhere, structs.NO_MARK))
        for direction in (Direction.IN, Direction.FORWARD):
            policies.append(_passing(direction, inward, INNER))
            policies.append(_blocking(direction, inward, came_in))
    return tuple(policies)


def _passing(direction: Direction, selector: bytes, mark: bytes) -> Policy:
    return Policy(
        direction=direction, selector=selector, mark=mark, priority=CARRIES, action=PolicyAction.ALLOW, template=b""
    )


def _blocking(direction: Direction, selector: bytes, mark: bytes) -> Policy:
    return Policy(
        direction=direction, selector=selector, mark=mark, priority=BLOCKS, action=PolicyAction.BLOCK, template=b""
    )


class _Templates:
    """The templates of a rule, each packed once."""

    def __init__(self, rule: KernelRule) -> None:
        self._rule = rule
        self._packed: dict[tuple[int, bool], bytes] = {}

    def of(self, flow: Flow, outward: bool) -> bytes:
        """For one direction; the outer family is the inner one's where nothing else is said."""
        key = (flow.remote.address.version, outward)
        packed = self._packed.get(key)
        if packed is None:
            packed = self._packed[key] = _template(self._rule, flow, outward)
        return packed


def _template(rule: KernelRule, flow: Flow, outward: bool) -> bytes:
    ours: IpAddress | None = rule.local_address
    theirs: IpAddress | None = rule.peer_address
    if rule.mode is Mode.TRANSPORT:
        ours = theirs = None
    return structs.pack_template(
        source=ours if outward else theirs,
        destination=theirs if outward else ours,
        family=structs.family_of(theirs or flow.remote.address),
        reqid=reqid_of(rule.rule_id),
        mode=rule.mode,
    )


@value
class _Ported:
    """A protocol with a pair of masked ports."""

    protocol: int
    source: MaskedPort
    destination: MaskedPort


@functools.cache
def _any_ports(protocol: int) -> _Ported:
    return _Ported(protocol=protocol, source=structs.ANY_MASKED_PORT, destination=structs.ANY_MASKED_PORT)


def _ported(layer: KernelRule | NextLayer) -> Iterator[_Ported]:
    protocol = layer.protocol
    if layer.local_port == layer.remote_port == ANY_PORT:
        yield _any_ports(protocol)
    elif protocol in ICMP_PROTOCOLS:
        # One number for both sides (RFC 7296 section 3.13.1): the side that says something says it.
        said = layer.local_port if layer.local_port != ANY_PORT else layer.remote_port
        for masked in port_masks(said):
            kind, code = icmp_masks(masked)
            yield _Ported(protocol=protocol, source=kind, destination=code)
    else:
        for source in port_masks(layer.local_port):
            for destination in port_masks(layer.remote_port):
                yield _Ported(protocol=protocol, source=source, destination=destination)


_DIRECTIONS = (Direction.OUT, Direction.IN, Direction.FORWARD)
