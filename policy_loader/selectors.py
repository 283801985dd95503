"""The traffic that a rule speaks of, once its defaults are filled in (RFC 4301 section 4.4.1.1)."""

from collections import Counter
from collections.abc import Sequence

from ipc.types import Action, IpAddress, Mode, NextLayer, PortRange
from ipc.value import value
from policy_loader.addresses import Span, Spans, span_of_host, span_of_prefix
from policy_loader.model import DEFAULT_PORTS, DEFAULT_PROTOCOL, PeerEntry, Rule, RuleEntry
from policy_loader.values import ICMP, ICMPV6, HostName

ANY_V4, ANY_V6 = span_of_prefix("0.0.0.0/0"), span_of_prefix("::/0")
ANY: Spans = (ANY_V4, ANY_V6)
ANYTHING = (NextLayer(),)


ProtocolPorts = tuple[int, PortRange]


@value
class Sides:
    """Addresses of both sides. Each has a partner of its family on the other side; with none at all both are empty.

    `left_out` are addresses that the operator wrote and that have no partner.
    """

    local: Spans
    remote: Spans
    left_out: tuple[Span, ...] = ()

    def pairs(self) -> int:
        """How many pairs of prefixes of one family there are."""
        counts = Counter(
            (version, side) for side in (0, 1) for span in (self.local, self.remote)[side] for version, *_ in span.keys
        )
        return counts[4, 0] * counts[4, 1] + counts[6, 0] * counts[6, 1]


@value
class Selected:
    """A rule with the traffic it covers."""

    rule: Rule
    sides: Sides
    next_layers: tuple[NextLayer, ...]
    """Every protocol with every pair of ports, or every ICMP type."""


def select(rule: Rule, peer: PeerEntry | None) -> Selected:
    """The traffic of `rule`."""
    return Selected(rule=rule, sides=sides_of(rule.entry, peer), next_layers=_next_layers(rule.entry))


def icmp_ports(entry: RuleEntry, protocol: int) -> tuple[PortRange, ...]:
    """The types and codes of a rule as ranges, for ICMP or ICMPv6: those of its types that the protocol has."""
    types = [one.v4 if protocol == ICMP else one.v6 for one in entry.icmp_type]
    return tuple([ports for ports in types if ports is not None])


def local_ports(layers: Sequence[NextLayer]) -> tuple[ProtocolPorts, ...]:
    """What a traffic selector of our side says besides addresses, each once."""
    return tuple(dict.fromkeys([(layer.protocol, layer.local_port) for layer in layers]))


def remote_ports(layers: Sequence[NextLayer]) -> tuple[ProtocolPorts, ...]:
    """The same of the other side."""
    return tuple(dict.fromkeys([(layer.protocol, layer.remote_port) for layer in layers]))


def aligned_blocks(ports: PortRange) -> int:
    """How many masked ports make up a range: each is a power of two in size, and begins at a multiple of it."""
    count, first, end = 0, ports.first, ports.last + 1
    while first < end:
        size = first & -first or 1 << 16
        while size > end - first:
            size >>= 1
        first += size
        count += 1
    return count


def _next_layers(entry: RuleEntry) -> tuple[NextLayer, ...]:
    if entry.protocol is DEFAULT_PROTOCOL and entry.local_port is entry.remote_port is DEFAULT_PORTS:
        return ANYTHING
    layers = []
    for protocol in entry.protocol:
        if entry.icmp_type and protocol in (ICMP, ICMPV6):
            layers += [
                NextLayer(protocol=protocol, local_port=one, remote_port=one) for one in icmp_ports(entry, protocol)
            ]
            continue
        for local in entry.local_port:
            for remote in entry.remote_port:
                layers.append(NextLayer(protocol=protocol, local_port=local, remote_port=remote))
    return tuple(layers) or ANYTHING


def sides_of(rule: RuleEntry, peer: PeerEntry | None) -> Sides:
    """The addresses that `rule` covers. A transport rule that names none covers the peer's address and ours."""
    local, remote = rule.local or ANY, rule.remote or ANY
    if rule.action is Action.PROTECT and rule.mode is Mode.TRANSPORT and peer is not None:
        if rule.remote is None and peer.address is not None and not isinstance(peer.address, HostName):
            remote = (span_of_host(peer.address),)
        if rule.local is None and peer.local_address is not None:
            local = (span_of_host(peer.local_address),)
    return _of_common_families(rule, local, remote)


def with_peer_at(rule: RuleEntry, sides: Sides, address: IpAddress) -> Sides:
    """`sides` once the peer's name is found to stand for `address`: a transport rule covers just that."""
    if rule.mode is not Mode.TRANSPORT or rule.remote is not None:
        return sides
    return _of_common_families(rule, sides.local, (span_of_host(address),))


def _of_common_families(rule: RuleEntry, local: Spans, remote: Spans) -> Sides:
    if len(local) == len(remote) == 1 and local[0].version == remote[0].version:
        return Sides(local=local, remote=remote)
    local_families, remote_families = {one.version for one in local}, {one.version for one in remote}
    if local_families == remote_families:
        return Sides(local=local, remote=remote)
    families = local_families & remote_families
    written = (*(rule.local or ()), *(rule.remote or ()))
    return Sides(
        local=tuple(one for one in local if one.version in families),
        remote=tuple(one for one in remote if one.version in families),
        left_out=tuple(one for one in written if one.version not in families),
    )
