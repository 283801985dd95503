"""Rules of the SPD as XFRM policies, for both data paths. Pure.

Rule order becomes priority: each position has PRIORITIES_PER_RULE numbers, the lower ones win.
"""

import ipaddress
import itertools
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ipc.messages import KernelRule
from ipc.ownership import INNER_MARK
from ipc.types import ANY_PORT, Action, Direction, IpAddress, Mode, PortRange, Prefix
from kernel_agent.xfrm import structs
from kernel_agent.xfrm.constants import PolicyAction
from kernel_agent.xfrm.messages import ICMP_PROTOCOLS, Policy, icmp_masks, port_masks, reqid_of
from kernel_agent.xfrm.structs import MaskedPort, Selector

PRIORITIES_PER_RULE = 16
_ALLOW, _BLOCK = 4, 8
_EXEMPT_PRIORITY = 1
_NEIGHBOUR_DISCOVERY_TYPES = PortRange(first=133 << 8, last=137 << 8 | 255)
"""ICMPv6 types 133 to 137 (RFC 4861 section 4), any code."""
_ANY_IPV6 = Prefix(address=ipaddress.IPv6Address(0), length=0)
_IPV6_LOOPBACK = Prefix(address=ipaddress.IPv6Address(1), length=128)
INNER = structs.pack_mark(INNER_MARK, INNER_MARK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What one policy can say of a rule: a pair of prefixes and of masked ports, as packets that leave have them."""

    local: Prefix
    remote: Prefix
    protocol: int
    source_port: MaskedPort
    destination_port: MaskedPort


def flows_of(rule: KernelRule) -> Iterator[Flow]:
    """Every flow of a rule: prefix pairs of one family, times the pairs of (port, mask)."""
    ports = list(_port_pairs(rule))
    for local in rule.local:
        for remote in rule.remote:
            if local.address.version != remote.address.version:
                continue
            for pair in ports:
                yield Flow(
                    local=local,
                    remote=remote,
                    protocol=rule.protocol,
                    source_port=pair.source,
                    destination_port=pair.destination,
                )


def selector_of(flow: Flow, direction: Direction, ifindex: int = 0) -> bytes:
    """The packed selector of a flow: turned round for packets that come in or are forwarded in."""
    outward = direction is Direction.OUT
    # ICMP type and code stand in the same places whichever way the packet goes.
    keep_ports = outward or flow.protocol in ICMP_PROTOCOLS
    return structs.pack_selector(
        Selector(
            source=flow.local if outward else flow.remote,
            destination=flow.remote if outward else flow.local,
            protocol=flow.protocol,
            source_port=flow.source_port if keep_ports else flow.destination_port,
            destination_port=flow.destination_port if keep_ports else flow.source_port,
            ifindex=ifindex,
        )
    )


def kernel_policies(rules: Iterable[KernelRule]) -> dict[bytes, Policy]:
    """The policies of the kernel's ESP by their keys: out, in and forward for each flow, with templates for PROTECT."""
    ordered = tuple(rules)
    ruled = (policy for rule in ordered for flow in flows_of(rule) for policy in _plain(rule, flow))
    return _by_key(itertools.chain(_exempt_from(ordered), ruled))


def userspace_policies(rules: Iterable[KernelRule], tun_ifindex: int) -> dict[bytes, Policy]:
    """The policies around the TUN device: protected traffic passes only through it, in clear it is blocked.

    Bypass and discard as with the kernel's ESP.
    """
    ordered = tuple(rules)
    ruled = (
        policy
        for rule in ordered
        for flow in flows_of(rule)
        for policy in (_around_tun(rule, flow, tun_ifindex) if rule.action is Action.PROTECT else _plain(rule, flow))
    )
    return _by_key(itertools.chain(_exempt_from(ordered), ruled))


def _by_key(policies: Iterable[Policy]) -> dict[bytes, Policy]:
    """The first of each key: a later one could never match."""
    result: dict[bytes, Policy] = {}
    for policy in policies:
        result.setdefault(policy.key, policy)
    return result


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


def _exempt_from(rules: tuple[KernelRule, ...]) -> Iterator[Policy]:
    """Before all rules, where one is about IPv6, or its tunnel goes by IPv6."""
    if any(_speaks_of_ipv6(rule) for rule in rules):
        yield from exempt()


def _speaks_of_ipv6(rule: KernelRule) -> bool:
    by_ipv6 = rule.peer_address is not None and rule.peer_address.version == 6
    return by_ipv6 or any(prefix.address.version == 6 for prefix in rule.local)


def _priority(rule: KernelRule, offset: int) -> int:
    return (rule.position + 1) * PRIORITIES_PER_RULE + offset


def _plain(rule: KernelRule, flow: Flow) -> Iterator[Policy]:
    for direction in (Direction.OUT, Direction.IN, Direction.FORWARD):
        yield Policy(
            direction=direction,
            selector=selector_of(flow, direction),
            mark=structs.NO_MARK,
            priority=_priority(rule, _ALLOW),
            action=PolicyAction.BLOCK if rule.action is Action.DISCARD else PolicyAction.ALLOW,
            template=_template(rule, flow, direction) if rule.action is Action.PROTECT else b"",
        )


def _around_tun(rule: KernelRule, flow: Flow, tun_ifindex: int) -> Iterator[Policy]:
    """Allowed through the TUN, blocked elsewhere.

    But for IPv6 going out: when the kernel looks for the policy of what this host itself sends, it does not know the
    interface yet (for IPv4 it does), so a policy that names one never matches. There `routes.py` alone sees to it that
    the packet finds the TUN or no way at all.
    """
    for direction in (Direction.OUT, Direction.IN, Direction.FORWARD):
        outward = direction is Direction.OUT
        by_routing = outward and flow.local.address.version == 6
        yield Policy(
            direction=direction,
            selector=selector_of(flow, direction, tun_ifindex if outward and not by_routing else 0),
            mark=structs.NO_MARK if outward else INNER,
            priority=_priority(rule, _ALLOW),
            action=PolicyAction.ALLOW,
            template=b"",
        )
        if by_routing:
            continue
        yield Policy(
            direction=direction,
            selector=selector_of(flow, direction),
            mark=structs.NO_MARK,
            priority=_priority(rule, _BLOCK),
            action=PolicyAction.BLOCK,
            template=b"",
        )


def _template(rule: KernelRule, flow: Flow, direction: Direction) -> bytes:
    ours: IpAddress | None = rule.local_address
    theirs: IpAddress | None = rule.peer_address
    if rule.mode is Mode.TRANSPORT:
        ours = theirs = None
    outward = direction is Direction.OUT
    return structs.pack_template(
        source=ours if outward else theirs,
        destination=theirs if outward else ours,
        family=structs.family_of(theirs or flow.remote.address),
        reqid=reqid_of(rule.rule_id),
        mode=rule.mode,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PortPair:
    source: MaskedPort
    destination: MaskedPort


def _port_pairs(rule: KernelRule) -> Iterator[_PortPair]:
    if rule.protocol in ICMP_PROTOCOLS:
        # One number for both sides (RFC 7296 section 3.13.1): the side that says something says it.
        said = rule.local_port if rule.local_port != ANY_PORT else rule.remote_port
        for masked in port_masks(said):
            kind, code = icmp_masks(masked)
            yield _PortPair(source=kind, destination=code)
        return
    for source in port_masks(rule.local_port):
        for destination in port_masks(rule.remote_port):
            yield _PortPair(source=source, destination=destination)
