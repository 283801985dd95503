"""A checked draft to what the other roles are told: kernel rules, negotiation rules, peers. No secret in any of it."""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ipc.algorithms import EspProposal, IkeProposal
from ipc.messages import KernelRule, NegotiationRule, Peer
from ipc.types import (
    ANY_PORT,
    Action,
    DataPathKind,
    IpAddress,
    IpForward,
    Mode,
    PortRange,
    Prefix,
    TrafficSelector,
    Unmatched,
)
from policy_loader.model import Draft, PeerEntry, RuleEntry
from policy_loader.proposals import esp_words, ike_words
from policy_loader.rule_ids import RuleIds
from policy_loader.selectors import ANY, Selected, Sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy, ready to be enforced."""

    sha256: bytes
    """Of the file."""
    data_path: DataPathKind
    interfaces: tuple[str, ...]
    unmatched: Unmatched
    ip_forward: IpForward
    rules: int
    """How many the file has."""
    kernel_rules: tuple[KernelRule, ...]
    """Those of the file, and last the one for what no other matches, if that is discarded."""
    negotiation_rules: tuple[NegotiationRule, ...]
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposals:
    """One set of proposals, and the words that identify it."""

    ike: tuple[IkeProposal, ...]
    esp: tuple[EspProposal, ...]
    ike_text: str
    esp_text: str


def compile_policy(draft: Draft, selected: Sequence[Selected], sha256: bytes, rule_ids: RuleIds) -> Policy:
    """The policy of a draft that has no problems, of shape or of meaning; `selected` are its rules with their traffic.

    ValueError if it has problems after all.
    """
    if draft.setup is None:
        raise ValueError("a draft without [setup] can't be compiled")
    compiler = _Compiler(draft)
    kernel_rules = compiler.kernel_rules(selected, rule_ids)
    last = (_discard_unmatched(len(kernel_rules), rule_ids),) if draft.setup.unmatched is Unmatched.DISCARD else ()
    return Policy(
        sha256=sha256,
        data_path=draft.setup.data_path,
        interfaces=tuple(draft.setup.interfaces),
        unmatched=draft.setup.unmatched,
        ip_forward=draft.setup.ip_forward,
        rules=len(kernel_rules),
        kernel_rules=(*kernel_rules, *last),
        negotiation_rules=compiler.negotiation_rules(selected, kernel_rules),
        peers=compiler.peers,
    )


class _Compiler:
    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._proposals = {
            name: _Proposals(
                ike=tuple(one.ike),
                esp=tuple(one.esp),
                ike_text=",".join(ike_words(proposal) for proposal in one.ike),
                esp_text=",".join(esp_words(proposal) for proposal in one.esp),
            )
            for name, one in draft.proposals.items()
        }
        self._peers = {
            name: _peer(name, peer, self._proposals[peer.proposals].ike) for name, peer in draft.peers.items()
        }
        self._peer_prints = {
            name: peer_fingerprint(peer, self._proposals[draft.peers[name].proposals].ike_text)
            for name, peer in self._peers.items()
        }

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(self._peers.values())

    def kernel_rules(self, selected: Sequence[Selected], rule_ids: RuleIds) -> tuple[KernelRule, ...]:
        ids = rule_ids.assign([self._fingerprint(one.rule.entry, one.sides) for one in selected])
        return tuple(
            self._kernel_rule(one.rule.entry, one.sides, position, rule_id)
            for position, (one, rule_id) in enumerate(zip(selected, ids, strict=True))
        )

    def negotiation_rules(
        self, selected: Sequence[Selected], kernel_rules: Sequence[KernelRule]
    ) -> tuple[NegotiationRule, ...]:
        return tuple(
            self._negotiation_rule(one.rule.entry, kernel)
            for one, kernel in zip(selected, kernel_rules, strict=True)
            if kernel.action is Action.PROTECT
        )

    def _esp(self, entry: RuleEntry) -> _Proposals:
        return self._proposals[entry.proposals or self._draft.peers[entry.peer or ""].proposals]

    def _fingerprint(self, entry: RuleEntry, sides: Sides) -> bytes:
        if entry.action is not Action.PROTECT:
            return fingerprint(entry, sides, b"", "")
        return fingerprint(entry, sides, self._peer_prints[entry.peer or ""], self._esp(entry).esp_text)

    def _kernel_rule(self, entry: RuleEntry, sides: Sides, position: int, rule_id: int) -> KernelRule:
        protect = entry.action is Action.PROTECT
        peer = self._peers[entry.peer or ""] if protect else None
        return KernelRule(
            rule_id=rule_id,
            name=entry.name,
            position=position,
            action=entry.action,
            protocol=entry.protocol,
            local=sides.local,
            remote=sides.remote,
            local_port=entry.local_port,
            remote_port=entry.remote_port,
            mode=entry.mode,
            local_address=peer.local_address if peer else None,
            peer_address=peer.address if peer else None,
            esp_proposals=self._esp(entry).esp if protect else (),
        )

    def _negotiation_rule(self, entry: RuleEntry, kernel: KernelRule) -> NegotiationRule:
        return NegotiationRule(
            rule_id=kernel.rule_id,
            name=kernel.name,
            position=kernel.position,
            peer=entry.peer or "",
            mode=kernel.mode,
            local=_selectors(kernel.local, kernel.protocol, kernel.local_port),
            remote=_selectors(kernel.remote, kernel.protocol, kernel.remote_port),
            esp_proposals=kernel.esp_proposals,
            start=entry.start,
            rekey_s=entry.rekey,
            life_s=entry.life_s(),
        )


def _discard_unmatched(position: int, rule_ids: RuleIds) -> KernelRule:
    """The rule behind all others: RFC 4301 section 4.4.1 wants what no rule matches to be discarded."""
    (rule_id,) = rule_ids.assign([hashlib.sha256(b"unmatched").digest()])
    return KernelRule(
        rule_id=rule_id,
        name="(unmatched)",
        position=position,
        action=Action.DISCARD,
        protocol=0,
        local=ANY,
        remote=ANY,
        local_port=ANY_PORT,
        remote_port=ANY_PORT,
        mode=Mode.TUNNEL,
        local_address=None,
        peer_address=None,
        esp_proposals=(),
    )


def fingerprint(entry: RuleEntry, sides: Sides, peer: bytes, esp: str) -> bytes:
    """A hash of all that matters to the SAs of a rule: traffic, action, mode, lifetimes, proposals, and its peer.

    Not its name, its place, or when it is started. `peer` is the peer's own fingerprint, `esp` the ESP proposals in
    words; both are empty for a rule that does not protect.
    """
    protect = entry.action is Action.PROTECT
    ports = (entry.local_port.first, entry.local_port.last, entry.remote_port.first, entry.remote_port.last)
    parts = (
        entry.action.name,
        entry.protocol,
        *ports,
        *((entry.mode.name, entry.rekey, entry.life_s(), esp) if protect else ()),
    )
    hashed = hashlib.sha256(";".join(map(str, parts)).encode())
    for prefixes in (sides.local, sides.remote):
        hashed.update(b"|")
        for prefix in prefixes:
            hashed.update(b"%d/%d " % (prefix.address.version, prefix.length) + prefix.address.packed)
    hashed.update(b"|" + peer)
    return hashed.digest()


def peer_fingerprint(peer: Peer, ike: str) -> bytes:
    """A hash of all that matters to SAs with a peer: addresses, identities, authentication, proposals in words.

    Not its timers, and not its pre-shared key: nothing that leaves this process may depend on a secret. So SAs that
    were made under an old key stay until they end; an operator who wants them gone at once renames the peer.
    """
    hashed = hashlib.sha256()
    for part in (
        peer.name,
        peer.address,
        peer.local_address,
        peer.local_id.type.name,
        peer.local_id.data.hex(),
        peer.remote_id.type.name,
        peer.remote_id.data.hex(),
        peer.auth.name,
        peer.force_encapsulation,
        ike,
    ):
        text = str(part).encode()
        hashed.update(b"%d:" % len(text) + text)
    return hashed.digest()


def _peer(name: str, entry: PeerEntry, ike: Sequence[IkeProposal]) -> Peer:
    local_id = entry.local_identity()
    if local_id is None:
        raise ValueError(f"peer {name} has no local identity")
    return Peer(
        name=name,
        address=entry.address,
        local_address=entry.local_address,
        local_id=local_id,
        remote_id=entry.remote_identity(),
        auth=entry.auth,
        ike_proposals=tuple(ike),
        force_encapsulation=entry.force_encapsulation,
        liveness_s=entry.liveness,
        rekey_s=entry.ike_rekey,
    )


def _selectors(prefixes: Iterable[Prefix], protocol: int, ports: PortRange) -> tuple[TrafficSelector, ...]:
    return tuple(
        TrafficSelector(
            protocol=protocol,
            start_address=prefix.address,
            end_address=_last(prefix),
            start_port=ports.first,
            end_port=ports.last,
        )
        for prefix in prefixes
    )


def _last(prefix: Prefix) -> IpAddress:
    address = prefix.address
    if prefix.length == address.max_prefixlen:
        return address
    last = int(address) | ((1 << (address.max_prefixlen - prefix.length)) - 1)
    return ipaddress.IPv4Address(last) if address.version == 4 else ipaddress.IPv6Address(last)
