"""Links, addresses, and our routing rules and routes in the kernel (rtnetlink(7)), changed by as little as can be.

Links and addresses are few, and read by pyroute2's declarations. Rules and routes may be tens of thousands: they are
packed by `struct`, and told apart by what was packed.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import Any

from ipc.ownership import ROUTE_PROTOCOL, RULE_PREFERENCE_FIRST
from ipc.types import ANY_PORT, IpAddress, PortRange
from ipc.value import value
from kernel_agent.last_result import LastOfEach, LastOfEqual, LastResult
from kernel_agent.routes import IN_ORDER, Route, RoutingPlan, RoutingRule
from kernel_agent.rtnl import FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_TO_TBL, IFF_UP, ifaddrmsg, ifinfmsg
from kernel_agent.xfrm import constants as c
from kernel_agent.xfrm.netlink import Request, RequestSocket
from kernel_agent.xfrm.structs import ATTRIBUTE_HEADER, NLMSG_HEADER, Malformed, pack_attribute

_NEWLINK, _GETLINK, _GETADDR = 16, 18, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_RTN_UNICAST, _RTN_UNREACHABLE = 1, 7
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_LAST_METRIC = 0xFFFF_FFFF
_LOOPBACK = b"lo\0"
_FAMILIES = _AF_INET, _AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)

_HEADER = struct.Struct("=BBBBBBBBI")
"""struct fib_rule_hdr { __u8 family, dst_len, src_len, tos, table, res1, res2, action; __u32 flags; }; and
struct rtmsg { unsigned char rtm_family, rtm_dst_len, rtm_src_len, rtm_tos, rtm_table, rtm_protocol, rtm_scope,
rtm_type; unsigned int rtm_flags; };"""
_WORD = struct.Struct("=I")
_WORD_ATTRIBUTE = struct.Struct("=HHI")
_PORTS = struct.Struct("=HH")
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 4, 6, 10
_FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL, _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 15, 16, 21, 22, 23, 24
_RULE_ATTRIBUTES = (
    _FRA_PRIORITY, _FRA_PROTOCOL, _FRA_TABLE, _FRA_GOTO, _FRA_SRC, _FRA_DST, _FRA_IIFNAME, _FRA_FWMARK, _FRA_FWMASK,
    _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE,
)  # fmt: skip
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 6, 7, 15
_ROUTE_ATTRIBUTES = (_RTA_TABLE, _RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC)
_OURS_AMONG_RULES = pack_attribute(_FRA_PROTOCOL, bytes((ROUTE_PROTOCOL,)))


@value
class Link:
    """A network interface."""

    index: int
    name: str
    mtu: int
    up: bool


@value
class Present:
    """Our rules and routes as the kernel has them: bodies of the messages that made them."""

    rules: tuple[bytes, ...]
    routes: tuple[bytes, ...]


class RoutingTable:
    """Links, addresses, and our rules and routes in one network namespace."""

    def __init__(self, requests: RequestSocket) -> None:
        self._requests = requests
        self._packed = LastResult(self._packed_plan)
        self._packed_rules: LastOfEach[RoutingRule, bytes] = LastOfEach(pack_rule)
        self._packed_routes: LastOfEach[Route, bytes] = LastOfEach(pack_route)
        self._rules = {family: LastOfEqual(_rule_of) for family in _FAMILIES}
        self._routes = {family: LastOfEqual(_route_of) for family in _FAMILIES}
        self._installed: frozenset[bytes] = frozenset()
        """The rules that were installed last."""

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

    def present(self) -> Present:
        """Our rules and routes that exist."""
        rules = [one for family in _FAMILIES for one in self._rules[family].of(self._listed(_GETRULE, family))]
        routes = [one for family in _FAMILIES for one in self._routes[family].of(self._listed(_GETROUTE, family))]
        return Present(
            rules=tuple([rule for rule in rules if rule is not None]),
            routes=tuple([route for route in routes if route is not None]),
        )

    def _listed(self, kind: int, family: int) -> list[bytes]:
        return self._requests.dump_bodies(kind, _HEADER.pack(family, *bytes(8)))

    def install(self, wanted: RoutingPlan) -> None:
        """Makes `wanted` our rules and routes, touching only what differs. OSError, and nothing has changed."""
        before = self.present()
        goal = self._packed.of(wanted)
        try:
            self._apply(before, goal)
        except OSError:
            self._apply(self.present(), before)
            raise
        self._installed = frozenset(goal.rules)

    def check(self, wanted: RoutingPlan, scratch: "RoutingTable") -> None:
        """Has the kernel of `scratch`, where nothing else is, take the rules that are new, and takes them away again.

        Of each shape it is one: all but addresses and numbers. OSError if it does not take them.
        """
        fresh = tuple(body for body in self._packed.of(wanted).rules if body not in self._installed)
        tried = {(body[: _HEADER.size], len(body)): body for body in fresh}
        nothing = Present(rules=(), routes=())
        try:
            scratch._apply(nothing, Present(rules=tuple(tried.values()), routes=()))
        finally:
            scratch._apply(scratch.present(), nothing)

    def _packed_plan(self, plan: RoutingPlan) -> Present:
        return Present(rules=self._packed_rules.of(plan.rules), routes=self._packed_routes.of(plan.routes))

    def _apply(self, present: Present, wanted: Present) -> None:
        """At every step a packet that is led into the TUN before and after is so."""
        rules, routes = _Difference(wanted.rules, present.rules), _Difference(wanted.routes, present.routes)
        requests = list(_route_requests(routes))
        # Without NLM_F_EXCL, for which the kernel would look through all rules each time.
        requests += [Request(_NEWRULE, body, c.NLM_F_CREATE) for body in sorted(rules.add, key=_place_in_order)]
        requests += [Request(_DELRULE, body) for body in sorted(rules.remove, key=_place_in_order, reverse=True)]
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


class _Difference:
    """What to add to `present` and what to take away, so that it is `wanted`."""

    def __init__(self, wanted: tuple[bytes, ...], present: tuple[bytes, ...]) -> None:
        wanted_set, present_set = set(wanted), set(present)
        self.add = [body for body in dict.fromkeys(wanted) if body not in present_set]
        self.remove = [body for body in present if body not in wanted_set]


def _route_requests(routes: _Difference) -> Iterator[Request]:
    """A route that changes its source address alone is replaced."""
    yielding = {_without_source(body) for body in routes.remove}
    replaced = set()
    for body in routes.add:
        place = _without_source(body) if yielding else b""
        if place in yielding:
            replaced.add(place)
            yield Request(_NEWROUTE, body, c.NLM_F_CREATE | c.NLM_F_REPLACE)
        else:
            yield Request(_NEWROUTE, body, c.NLM_F_CREATE | c.NLM_F_EXCL)
    for body in routes.remove:
        if _without_source(body) not in replaced:
            yield Request(_DELROUTE, body)


def _place_in_order(body: bytes) -> tuple[int, int]:
    """When a rule is added; they are removed the other way round.

    First what jumps lead to and what lets our own packets through, then what leads into the TUN, jumps behind their
    blocks, and last what leads past it.
    """
    (preference,) = _WORD.unpack_from(body, _HEADER.size + 4)  # the first attribute
    action = body[7]
    if action == FR_ACT_NOP or preference == RULE_PREFERENCE_FIRST:
        return 0, -preference
    leads_past = action == FR_ACT_GOTO and preference > IN_ORDER
    return 2 if leads_past else 1, -preference


def _without_source(body: bytes) -> bytes:
    """What makes a route another one to the kernel."""
    attributes = _attributes(body)
    attributes.pop(_RTA_PREFSRC, None)
    return body[: _HEADER.size] + _ordered(attributes, _ROUTE_ATTRIBUTES)


def _encoded(message: Any) -> bytes:
    """The body of one of pyroute2's messages."""
    message.encode()
    return bytes(message.data[16:])


def pack_rule(rule: RoutingRule) -> bytes:
    """The body of NEWRULE and DELRULE; attributes in the order of _RULE_ATTRIBUTES."""
    source, destination, action = rule.source, rule.destination, rule.action
    lengths = (destination.length if destination else 0, source.length if source else 0)
    parts = [
        _HEADER.pack(rule.family, *lengths, 0, 0, 0, 0, action, 0),
        _word(_FRA_PRIORITY, rule.preference),
        _OURS_AMONG_RULES,
    ]
    if action == FR_ACT_TO_TBL:
        parts.append(_word(_FRA_TABLE, rule.table))
    if action == FR_ACT_GOTO:
        parts.append(_word(_FRA_GOTO, rule.target))
    if source is not None:
        parts.append(pack_attribute(_FRA_SRC, source.address.packed))
    if destination is not None:
        parts.append(pack_attribute(_FRA_DST, destination.address.packed))
    if rule.own:
        parts.append(pack_attribute(_FRA_IIFNAME, _LOOPBACK))
    if rule.mark:
        parts += (_word(_FRA_FWMARK, rule.mark), _word(_FRA_FWMASK, rule.mark))
    if rule.protocol:
        parts.append(pack_attribute(_FRA_IP_PROTO, bytes((rule.protocol,))))
    if rule.source_port is not ANY_PORT and rule.source_port != ANY_PORT:
        parts.append(pack_attribute(_FRA_SPORT_RANGE, _pack_ports(rule.source_port)))
    if rule.destination_port is not ANY_PORT and rule.destination_port != ANY_PORT:
        parts.append(pack_attribute(_FRA_DPORT_RANGE, _pack_ports(rule.destination_port)))
    return b"".join(parts)


def _word(kind: int, value: int) -> bytes:
    """An attribute with a __u32."""
    return _WORD_ATTRIBUTE.pack(8, kind, value)


def _pack_ports(ports: PortRange) -> bytes:
    """struct fib_rule_port_range { __u16 start, end; };"""
    return _PORTS.pack(ports.first, ports.last)


def _rule_of(body: bytes) -> bytes | None:
    """What `pack_rule` made of the rule that the kernel lists; None if it is not ours."""
    attributes = _attributes(body)
    if attributes.get(_FRA_PROTOCOL) != _OURS_AMONG_RULES:
        return None
    family, destination_length, source_length, _, _, _, _, action, _ = _HEADER.unpack_from(body)
    if action != FR_ACT_TO_TBL:
        attributes.pop(_FRA_TABLE, None)
    header = _HEADER.pack(family, destination_length, source_length, 0, 0, 0, 0, action, 0)
    attributes.setdefault(_FRA_PRIORITY, _word(_FRA_PRIORITY, 0))
    return header + _ordered(attributes, _RULE_ATTRIBUTES)


def pack_route(route: Route) -> bytes:
    """The body of NEWROUTE and DELROUTE; attributes in the order of _ROUTE_ATTRIBUTES."""
    destination, ifindex = route.destination, route.ifindex
    is_v4 = destination.address.version == 4
    return b"".join(
        (
            _route_header(_AF_INET if is_v4 else _AF_INET6, destination.length, ifindex),
            _word(_RTA_TABLE, route.table),
            pack_attribute(_RTA_DST, destination.address.packed) if destination.length else b"",
            _word(_RTA_OIF, ifindex) if ifindex else _word(_RTA_PRIORITY, _LAST_METRIC),
            b"" if route.source is None else pack_attribute(_RTA_PREFSRC, route.source.packed),
        )
    )


def _route_header(family: int, length: int, ifindex: int) -> bytes:
    scope = _SCOPE_LINK if ifindex and family == _AF_INET else _SCOPE_UNIVERSE
    kind = _RTN_UNICAST if ifindex else _RTN_UNREACHABLE
    return _HEADER.pack(family, length, 0, 0, 0, ROUTE_PROTOCOL, scope, kind, 0)


def _route_of(body: bytes) -> bytes | None:
    """What `pack_route` made of the route that the kernel lists; None if it is not ours."""
    family, length, _, _, _, protocol, _, kind, _ = _HEADER.unpack_from(body)
    if protocol != ROUTE_PROTOCOL:
        return None
    attributes = _attributes(body)
    if not length:
        attributes.pop(_RTA_DST, None)
    ifindex = 0
    if kind == _RTN_UNREACHABLE:
        # An unreachable IPv6 route stands on the loopback device.
        attributes.pop(_RTA_OIF, None)
        attributes[_RTA_PRIORITY] = _word(_RTA_PRIORITY, _LAST_METRIC)
    else:
        attributes.pop(_RTA_PRIORITY, None)
        oif = attributes.get(_RTA_OIF)
        ifindex = 0 if oif is None else _WORD.unpack_from(oif, 4)[0]
    return _route_header(family, length, ifindex) + _ordered(attributes, _ROUTE_ATTRIBUTES)


def _ordered(attributes: dict[int, bytes], order: tuple[int, ...]) -> bytes:
    return b"".join([attributes[kind] for kind in order if kind in attributes])


def _attributes(body: bytes) -> dict[int, bytes]:
    """All attributes by their kind, each with its header, as the kernel packs them too; Malformed."""
    attributes: dict[int, bytes] = {}
    offset, end = _HEADER.size, len(body)
    while offset + 4 <= end:
        length, kind = ATTRIBUTE_HEADER.unpack_from(body, offset)
        if length < 4 or offset + length > end:
            raise Malformed(f"attribute {kind}: {length} bytes, {end - offset} left")
        after = offset + ((length + 3) & ~3)
        attributes[kind] = body[offset:after]
        offset = after
    return attributes
