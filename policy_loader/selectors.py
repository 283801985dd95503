"""The traffic that a rule speaks of, once its defaults are filled in (RFC 4301 section 4.4.1.1)."""

from ipc.types import Action, IpAddress, Mode, PortRange
from ipc.value import value
from policy_loader.addresses import Span, Spans, span_of_host, span_of_prefix
from policy_loader.model import PeerEntry, Rule, RuleEntry
from policy_loader.values import ICMP, HostName

ANY_V4, ANY_V6 = span_of_prefix("0.0.0.0/0"), span_of_prefix("::/0")
ANY: Spans = (ANY_V4, ANY_V6)


@value
class Sides:
    """Addresses of both sides. Each has a partner of its family on the other side; with none at all both are empty.

    `left_out` are addresses that the operator wrote and that have no partner.
    """

    local: Spans
    remote: Spans
    left_out: tuple[Span, ...] = ()


@value
class Selected:
    """A rule with the traffic it covers; for ICMP both ports are the type and code (RFC 4301 section 4.4.1.3)."""

    rule: Rule
    sides: Sides
    local_port: PortRange
    remote_port: PortRange


def select(rule: Rule, peer: PeerEntry | None) -> Selected:
    """The traffic of `rule`."""
    entry = rule.entry
    icmp = icmp_ports(entry) if entry.icmp_type is not None else None
    return Selected(
        rule=rule,
        sides=sides_of(entry, peer),
        local_port=icmp or entry.local_port,
        remote_port=icmp or entry.remote_port,
    )


def icmp_ports(entry: RuleEntry) -> PortRange | None:
    """The ICMP types and codes of a rule as a range; None if its protocol has no such type."""
    if entry.icmp_type is None:
        return None
    return entry.icmp_type.v4 if entry.protocol == ICMP else entry.icmp_type.v6


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
