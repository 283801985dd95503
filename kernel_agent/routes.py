"""Rules and routes that lead protected traffic into the TUN of the user-space data path (ip-rule(8), rtnetlink(7)).

Policy routing keeps the SPD's first match: our rules stand in SPD order between RULE_PREFERENCE_FIRST and ..._LAST.

    4500   fwmark OUTER_MARK goto 4599          our own ESP and IKE never enter the TUN
    4501+  from LOCAL to REMOTE lookup 4500     PROTECT
           from LOCAL to REMOTE goto 4599       BYPASS, where a later PROTECT would take the packet
    4599   nop

Each REMOTE has two routes in table 4500: into the TUN, and behind it "unreachable", for when the TUN is gone: what was
led here finds the TUN or no way at all. For IPv6 that is all there is (see `xfrm.policies`), so what this host itself
sends to REMOTE comes here whatever its source, if the host has an address in LOCAL: what does not belong into the
tunnel is dropped by the data path then, instead of taking the ordinary route.

Neighbours that do the same share a preference, as their order does not matter. Only objects with ROUTE_PROTOCOL are
ever touched. ICMP types are no criterion here; the policies decide those.
"""

import ipaddress
import itertools
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pyroute2.netlink.rtnl.fibmsg import FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_TO_TBL, fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ipc.messages import KernelRule
from ipc.ownership import OUTER_MARK, ROUTE_PROTOCOL, ROUTE_TABLE, RULE_PREFERENCE_FIRST, RULE_PREFERENCE_LAST
from ipc.types import ANY_PORT, Action, IpAddress, PortRange, Prefix
from kernel_agent.data_path import DataPathError
from kernel_agent.reconcile import set_diff
from kernel_agent.xfrm import constants as c
from kernel_agent.xfrm.messages import ICMP_PROTOCOLS
from kernel_agent.xfrm.netlink import Request, RequestSocket
from kernel_agent.xfrm.structs import NLMSG_HEADER

_NEWLINK, _GETLINK, _GETADDR = 16, 18, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_RT_TABLE_UNSPEC = 0
_RTN_UNICAST, _RTN_UNREACHABLE = 1, 7
_LAST_METRIC = 0xFFFF_FFFF
_LOOPBACK = "lo"
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_FAMILIES = (int(socket.AF_INET), int(socket.AF_INET6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface."""

    index: int
    name: str
    mtu: int
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """One of our policy routing rules; the fields are those of ip-rule(8)."""

    family: int
    preference: int
    action: int
    """FR_ACT_TO_TBL (always ROUTE_TABLE), FR_ACT_GOTO (always RULE_PREFERENCE_LAST) or FR_ACT_NOP."""
    source: Prefix | None = None
    destination: Prefix | None = None
    protocol: int = 0
    source_port: PortRange = ANY_PORT
    destination_port: PortRange = ANY_PORT
    mark: int = 0
    """A single bit that is value and mask at once; 0 for any."""
    own: bool = False
    """Only what this host itself sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One of our routes, all in ROUTE_TABLE."""

    destination: Prefix
    ifindex: int
    """0 for the route that leads nowhere."""
    source: IpAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPlan:
    """All that should be there."""

    rules: tuple[RoutingRule, ...]
    routes: tuple[Route, ...]


NOTHING = RoutingPlan(rules=(), routes=())


# ------------------------------------------------------------- what should be


def plan(rules: Iterable[KernelRule], own_addresses: Iterable[IpAddress], tun_ifindex: int) -> RoutingPlan:
    """The rules and routes for an SPD; DataPathError where it changes between PROTECT and BYPASS too often."""
    ordered = sorted(rules, key=lambda rule: rule.position)
    addresses = sorted(own_addresses, key=lambda address: (address.version, int(address)))
    wanted: list[RoutingRule] = []
    for family in _FAMILIES:
        middle = list(_numbered(_steps(ordered, family, addresses)))
        if middle:
            wanted += [_frame(family, RULE_PREFERENCE_FIRST, FR_ACT_GOTO, OUTER_MARK), *middle]
            wanted.append(_frame(family, RULE_PREFERENCE_LAST, FR_ACT_NOP, 0))
    return RoutingPlan(rules=tuple(dict.fromkeys(wanted)), routes=tuple(_routes(ordered, addresses, tun_ifindex)))


def _frame(family: int, preference: int, action: int, mark: int) -> RoutingRule:
    return RoutingRule(family=family, preference=preference, action=action, mark=mark)


def _steps(rules: list[KernelRule], family: int, addresses: list[IpAddress]) -> Iterator[RoutingRule]:
    """In SPD order, with preference 0. Discarded packets need no route: their policy blocks them on any."""
    protects = [rule for rule in rules if rule.action is Action.PROTECT]
    for rule in rules:
        if rule.action is Action.BYPASS:
            later = [one for one in protects if one.position > rule.position]
            for step in _pairs(rule, family, FR_ACT_GOTO):
                if any(_overlap(step, other) for one in later for other in _pairs(one, family, FR_ACT_TO_TBL)):
                    yield step
        elif rule.action is Action.PROTECT:
            for step in _pairs(rule, family, FR_ACT_TO_TBL):
                yield step
                yield from _unbound(step, addresses)


def _pairs(rule: KernelRule, family: int, action: int) -> Iterator[RoutingRule]:
    icmp = rule.protocol in ICMP_PROTOCOLS
    for local, remote in itertools.product(rule.local, rule.remote):
        if _family_of(local) == _family_of(remote) == family:
            yield RoutingRule(
                family=family,
                preference=0,
                action=action,
                source=local if local.length else None,
                destination=remote if remote.length else None,
                protocol=rule.protocol,
                source_port=ANY_PORT if icmp else rule.local_port,
                destination_port=ANY_PORT if icmp else rule.remote_port,
            )


def _unbound(step: RoutingRule, addresses: list[IpAddress]) -> Iterator[RoutingRule]:
    """For sockets that have no source address yet, where we have one to give them. IPv6 rules can't ask for that."""
    if step.source is None or _address_in(step.source, addresses) is None:
        return
    is_v4 = step.family == socket.AF_INET
    yield RoutingRule(
        family=step.family,
        preference=0,
        action=step.action,
        source=Prefix(address=ipaddress.IPv4Address(0), length=32) if is_v4 else None,
        own=not is_v4,
        destination=step.destination,
        protocol=step.protocol,
        destination_port=step.destination_port,
    )


def _numbered(steps: Iterator[RoutingRule]) -> Iterator[RoutingRule]:
    preference = RULE_PREFERENCE_FIRST
    for _, group in itertools.groupby(steps, key=lambda step: step.action):
        preference += 1
        if preference >= RULE_PREFERENCE_LAST:
            raise DataPathError(
                "bypass and protect rules that overlap alternate too often for the user-space data path; "
                "put the bypass rules first"
            )
        for step in group:
            yield replace(step, preference=preference)


def _routes(rules: list[KernelRule], addresses: list[IpAddress], tun_ifindex: int) -> Iterator[Route]:
    """One for each remote prefix. The first rule that has an address of ours in its local prefixes lends it."""
    sources: dict[Prefix, IpAddress | None] = {}
    for rule in rules:
        if rule.action is not Action.PROTECT:
            continue
        for local, remote in itertools.product(rule.local, rule.remote):
            if _family_of(local) == _family_of(remote):
                sources[remote] = sources.get(remote) or _address_in(local, addresses)
    for remote, source in sources.items():
        yield Route(destination=remote, ifindex=tun_ifindex, source=source)
        yield Route(destination=remote, ifindex=0, source=None)


def _address_in(prefix: Prefix, addresses: list[IpAddress]) -> IpAddress | None:
    network = _network(prefix)
    return next((address for address in addresses if address.version == network.version and address in network), None)


def _overlap(one: RoutingRule, other: RoutingRule) -> bool:
    return (
        _prefixes_overlap(one.source, other.source)
        and _prefixes_overlap(one.destination, other.destination)
        and (not one.protocol or not other.protocol or one.protocol == other.protocol)
        and _ports_overlap(one.source_port, other.source_port)
        and _ports_overlap(one.destination_port, other.destination_port)
    )


def _prefixes_overlap(one: Prefix | None, other: Prefix | None) -> bool:
    if one is None or other is None:
        return True
    drop = one.address.max_prefixlen - min(one.length, other.length)
    return int(one.address) >> drop == int(other.address) >> drop


def _ports_overlap(one: PortRange, other: PortRange) -> bool:
    return one.first <= other.last and other.first <= one.last


def _network(prefix: Prefix) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((prefix.address.packed, prefix.length))


def _family_of(prefix: Prefix) -> int:
    return _FAMILIES[prefix.address.version == 6]


# ------------------------------------------------------------- what is, and the way there


class RoutingTable:
    """Links, addresses, and our rules and routes in one network namespace."""

    def __init__(self, requests: RequestSocket) -> None:
        self._requests = requests

    def links(self) -> tuple[Link, ...]:
        """All interfaces."""
        found = []
        for message in self._dump(_GETLINK, ifinfmsg, 0):
            name = message.get_attr("IFLA_IFNAME")
            mtu = message.get_attr("IFLA_MTU")
            found.append(Link(index=message["index"], name=name, mtu=mtu or 0, up=bool(message["flags"] & IFF_UP)))
        return tuple(found)

    def addresses(self) -> tuple[IpAddress, ...]:
        """All addresses of this host but link-local and loopback ones."""
        texts = (
            message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            for family in _FAMILIES
            for message in self._dump(_GETADDR, ifaddrmsg, family)
        )
        addresses = (ipaddress.ip_address(text) for text in texts)
        return tuple(address for address in addresses if not address.is_link_local and not address.is_loopback)

    def bring_up(self, link: Link, mtu: int) -> None:
        """Sets a link up with this MTU, if it is not so already."""
        if link.up and link.mtu == mtu:
            return
        message = ifinfmsg()
        message["index"], message["flags"], message["change"] = link.index, IFF_UP, IFF_UP
        message["attrs"] = [("IFLA_MTU", mtu)]
        self._requests.execute([Request(_NEWLINK, _encoded(message))])

    def present(self) -> RoutingPlan:
        """Our rules and routes that exist."""
        rules = [
            _rule_from(message)
            for family in _FAMILIES
            for message in self._dump(_GETRULE, fibmsg, family)
            if message.get_attr("FRA_PROTOCOL") == ROUTE_PROTOCOL
        ]
        routes = [
            _route_from(message)
            for family in _FAMILIES
            for message in self._dump(_GETROUTE, rtmsg, family)
            if message["proto"] == ROUTE_PROTOCOL and message.get_attr("RTA_TABLE") == ROUTE_TABLE
        ]
        return RoutingPlan(rules=tuple(rules), routes=tuple(routes))

    def install(self, wanted: RoutingPlan) -> None:
        """Makes `wanted` our rules and routes, touching only what differs. OSError, and nothing has changed."""
        before = self.present()
        try:
            self._apply(before, wanted)
        except OSError:
            self._apply(self.present(), before)
            raise

    def _apply(self, present: RoutingPlan, wanted: RoutingPlan) -> None:
        routes = set_diff(wanted.routes, present.routes)
        rules = set_diff(wanted.rules, present.rules)
        create = c.NLM_F_CREATE | c.NLM_F_EXCL
        # Old routes go before new ones: one that differs only in its source is the same to the kernel.
        requests = [Request(_DELROUTE, _route_body(route)) for route in routes.remove]
        requests += [Request(_NEWROUTE, _route_body(route), create) for route in routes.add]
        requests += [Request(_NEWRULE, _rule_body(rule), create) for rule in rules.add]
        requests += [Request(_DELRULE, _rule_body(rule)) for rule in rules.remove]
        if requests:
            self._requests.execute(requests)

    def _dump(self, kind: int, declaration: Any, family: int) -> Iterator[Any]:
        question = declaration()
        question["family"] = family
        for answer in self._requests.dump(kind, _encoded(question)):
            # pyroute2's declarations want the netlink header in front.
            message = declaration(NLMSG_HEADER.pack(16 + len(answer.body), answer.kind, 0, 0, 0) + answer.body)
            message.decode()
            yield message


def _encoded(message: Any) -> bytes:
    """The body of one of pyroute2's messages."""
    message.encode()
    return bytes(message.data[16:])


def _rule_body(rule: RoutingRule) -> bytes:
    message = fibmsg()
    message["family"], message["action"], message["table"] = rule.family, rule.action, _RT_TABLE_UNSPEC
    attributes: list[tuple[str, object]] = [("FRA_PRIORITY", rule.preference), ("FRA_PROTOCOL", ROUTE_PROTOCOL)]
    if rule.action == FR_ACT_TO_TBL:
        attributes.append(("FRA_TABLE", ROUTE_TABLE))
    if rule.action == FR_ACT_GOTO:
        attributes.append(("FRA_GOTO", RULE_PREFERENCE_LAST))
    if rule.source is not None:
        message["src_len"] = rule.source.length
        attributes.append(("FRA_SRC", str(rule.source.address)))
    if rule.destination is not None:
        message["dst_len"] = rule.destination.length
        attributes.append(("FRA_DST", str(rule.destination.address)))
    if rule.own:
        attributes.append(("FRA_IIFNAME", _LOOPBACK))
    if rule.mark:
        attributes += [("FRA_FWMARK", rule.mark), ("FRA_FWMASK", rule.mark)]
    if rule.protocol:
        attributes.append(("FRA_IP_PROTO", rule.protocol))
    for name, ports in (("FRA_SPORT_RANGE", rule.source_port), ("FRA_DPORT_RANGE", rule.destination_port)):
        if ports != ANY_PORT:
            attributes.append((name, f"{ports.first}:{ports.last}"))
    message["attrs"] = attributes
    return _encoded(message)


def _rule_from(message: Any) -> RoutingRule:
    return RoutingRule(
        family=message["family"],
        preference=message.get_attr("FRA_PRIORITY") or 0,
        action=message["action"],
        source=_prefix(message.get_attr("FRA_SRC"), message["src_len"]),
        destination=_prefix(message.get_attr("FRA_DST"), message["dst_len"]),
        protocol=message.get_attr("FRA_IP_PROTO") or 0,
        source_port=_ports(message.get_attr("FRA_SPORT_RANGE")),
        destination_port=_ports(message.get_attr("FRA_DPORT_RANGE")),
        mark=message.get_attr("FRA_FWMARK") or 0,
        own=message.get_attr("FRA_IIFNAME") == _LOOPBACK,
    )


def _route_body(route: Route) -> bytes:
    message = rtmsg()
    is_v4 = route.destination.address.version == 4
    message["family"] = _family_of(route.destination)
    message["dst_len"] = route.destination.length
    message["table"], message["proto"] = _RT_TABLE_UNSPEC, ROUTE_PROTOCOL
    message["type"] = _RTN_UNICAST if route.ifindex else _RTN_UNREACHABLE
    message["scope"] = _SCOPE_LINK if is_v4 and route.ifindex else _SCOPE_UNIVERSE
    attributes: list[tuple[str, object]] = [("RTA_TABLE", ROUTE_TABLE)]
    attributes.append(("RTA_OIF", route.ifindex) if route.ifindex else ("RTA_PRIORITY", _LAST_METRIC))
    if route.destination.length:
        attributes.append(("RTA_DST", str(route.destination.address)))
    if route.source is not None:
        attributes.append(("RTA_PREFSRC", str(route.source)))
    message["attrs"] = attributes
    return _encoded(message)


def _route_from(message: Any) -> Route:
    zero = "0.0.0.0" if message["family"] == socket.AF_INET else "::"
    text = message.get_attr("RTA_DST") or zero
    source = message.get_attr("RTA_PREFSRC")
    return Route(
        destination=Prefix(address=ipaddress.ip_address(text), length=message["dst_len"]),
        # An unreachable IPv6 route stands on the loopback device.
        ifindex=0 if message["type"] == _RTN_UNREACHABLE else message.get_attr("RTA_OIF") or 0,
        source=None if source is None else ipaddress.ip_address(source),
    )


def _prefix(text: str | None, length: int) -> Prefix | None:
    return Prefix(address=ipaddress.ip_address(text), length=length) if text and length else None


def _ports(text: str | None) -> PortRange:
    if not text:
        return ANY_PORT
    first, _, last = text.partition(":")
    return PortRange(first=int(first), last=int(last))
