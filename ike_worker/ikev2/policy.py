"""The policy as IKE needs it: which peer is at an address, and which rules it may negotiate. RFC 4301 section 4.4.3."""

from collections import defaultdict

from ipc.messages import NegotiationRule, Peer
from ipc.types import IpAddress


class Policy:
    """Peers and protect rules, indexed. Never changed: a new policy is a new object."""

    __slots__ = ("_packed_addresses", "_peers", "_peers_by_address", "_rules", "_rules_by_peer")

    def __init__(self, peers: tuple[Peer, ...] = (), rules: tuple[NegotiationRule, ...] = ()) -> None:
        self._peers = {peer.name: peer for peer in peers}
        self._rules = {rule.rule_id: rule for rule in rules}
        self._peers_by_address: defaultdict[IpAddress | None, list[Peer]] = defaultdict(list)
        for peer in peers:
            self._peers_by_address[peer.address].append(peer)
        self._packed_addresses = frozenset(peer.address.packed for peer in peers if peer.address is not None)
        self._rules_by_peer: defaultdict[str, list[NegotiationRule]] = defaultdict(list)
        for rule in sorted(rules, key=lambda rule: rule.position):
            self._rules_by_peer[rule.peer].append(rule)

    def peer(self, name: str) -> Peer | None:
        """The peer of this name."""
        return self._peers.get(name)

    @property
    def peer_names(self) -> set[str]:
        """All peers."""
        return set(self._peers)

    @property
    def rule_ids(self) -> set[int]:
        """All rules."""
        return set(self._rules)

    def rule(self, rule_id: int) -> NegotiationRule | None:
        """The rule of this number."""
        return self._rules.get(rule_id)

    def peers_between(self, local: IpAddress, remote: IpAddress) -> list[Peer]:
        """The peers that speak from `remote` to our `local`, in the order of the policy.

        Those whose address it is come first, then those that may come from anywhere.
        """
        there, anywhere = self._peers_by_address.get(remote, []), self._peers_by_address.get(None, [])
        return [peer for peer in there + anywhere if peer.local_address in (None, local)]

    def expects(self, address: bytes) -> bool:
        """Whether any peer may speak from this address (4 or 16 bytes)."""
        return address in self._packed_addresses or None in self._peers_by_address

    def rules_of(self, peer: Peer) -> list[NegotiationRule]:
        """The rules of `peer`, in the order of the SPD."""
        return self._rules_by_peer.get(peer.name, [])
