"""The traffic that a rule speaks of, once its defaults are filled in (RFC 4301 section 4.4.1.1)."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from ipc.types import Action, IpAddress, Mode, Prefix
from policy_loader.model import PeerEntry, Rule, RuleEntry

ANY = (
    Prefix(address=ipaddress.IPv4Address(0), length=0),
    Prefix(address=ipaddress.IPv6Address(0), length=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Prefixes of both sides. Each has a partner of its family on the other side; with none at all both are empty.

    `left_out` are prefixes that the operator wrote and that have no partner.
    """

    local: tuple[Prefix, ...]
    remote: tuple[Prefix, ...]
    left_out: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A rule with the prefixes it covers."""

    rule: Rule
    sides: Sides


def sides_of(rule: RuleEntry, peer: PeerEntry | None) -> Sides:
    """The prefixes that `rule` covers. A transport rule that names none covers the peer's address and ours."""
    local: Sequence[Prefix] = rule.local or ANY
    remote: Sequence[Prefix] = rule.remote or ANY
    if rule.action is Action.PROTECT and rule.mode is Mode.TRANSPORT and peer is not None:
        if rule.remote is None:
            remote = (host(peer.address),)
        if rule.local is None and peer.local_address is not None:
            local = (host(peer.local_address),)
    local_families = {one.address.version for one in local}
    remote_families = {one.address.version for one in remote}
    if local_families == remote_families:
        return Sides(local=tuple(local), remote=tuple(remote), left_out=())
    families = local_families & remote_families
    written = (*(rule.local or ()), *(rule.remote or ()))
    return Sides(
        local=tuple(one for one in local if one.address.version in families),
        remote=tuple(one for one in remote if one.address.version in families),
        left_out=tuple(one for one in written if one.address.version not in families),
    )


def host(address: IpAddress) -> Prefix:
    """The prefix that holds `address` alone."""
    return Prefix(address=address, length=address.max_prefixlen)
