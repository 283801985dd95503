"""Rules that can never match, whatever stands before them: no packet is as they say, or the kernel never asks."""

import ipaddress

from ipc.types import NextLayer
from policy_loader.addresses import Span, Spans
from policy_loader.selectors import ANYTHING, Selected
from policy_loader.values import ICMP, ICMPV6

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_FIRST_OF_DISCOVERY, _LAST_OF_DISCOVERY = 133 << 8, 137 << 8 | 255
"""ICMPv6 types and codes of neighbour discovery (RFC 4861 section 4), as a range of ports."""


def why_never(one: Selected) -> str:
    """Why no packet can match the rule; empty if one can, as far as its addresses, protocols and types say."""
    if all(map(_is_loopback, one.sides.local)) or all(map(_is_loopback, one.sides.remote)):
        return "the loopback device passes whatever the rules say"
    if one.next_layers is ANYTHING:
        return ""
    versions = {span.version for span in one.sides.local}
    icmp_of = {4: ICMPV6, 6: ICMP}
    if all(all(layer.protocol == icmp_of[version] for version in versions) for layer in one.next_layers):
        return _wrong_icmp(one.sides.local)
    if all(map(_is_discovery, one.next_layers)):
        return "neighbour discovery passes whatever the rules say"
    return ""


def _is_loopback(span: Span) -> bool:
    return any(span.version == net.version and span.first in net and span.last in net for net in _LOOPBACK)


def _wrong_icmp(spans: Spans) -> str:
    if spans[0].version == 4:
        return 'its addresses are IPv4, which ICMPv6 is not for: write "icmp"'
    return 'its addresses are IPv6, which ICMP is not for: write "icmpv6"'


def _is_discovery(layer: NextLayer) -> bool:
    ports = layer.local_port
    return layer.protocol == ICMPV6 and ports.first >= _FIRST_OF_DISCOVERY and ports.last <= _LAST_OF_DISCOVERY
