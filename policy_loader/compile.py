"""A checked draft to what the other roles are told: kernel rules, negotiation rules, peers, and SAs with manual keys.

Only the last hold a secret, and only the agent is told them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import TypeVar

from ipc.algorithms import EspProposal, IkeProposal
from ipc.identities import matches
from ipc.messages import HalfOpenLimits, KernelRule, ManualTunnel, NegotiationRule, Peer, Sa
from ipc.types import (
    ANY_PORT,
    Action,
    AuthMethod,
    DataPathKind,
    Identity,
    IpAddress,
    IpForward,
    Mode,
    Prefix,
    StartAction,
    TrafficSelector,
    Unmatched,
)
from ipc.value import value
from policy_loader import manual
from policy_loader.addresses import Spans
from policy_loader.credentials.loading import PublicFacts
from policy_loader.credentials.store import AuthKind
from policy_loader.manual import ManualKeys
from policy_loader.model import DEFAULT_HALF_OPEN, LIFE_PER_REKEY, Draft, PeerEntry, RuleEntry
from policy_loader.proposals import esp_words, ike_words
from policy_loader.rule_ids import RuleIds
from policy_loader.selectors import (
    ANY,
    ANYTHING,
    ProtocolPorts,
    Selected,
    Sides,
    local_ports,
    remote_ports,
    with_peer_at,
)
from policy_loader.values import HostName


@value
class Policy:
    """A whole policy, ready to be enforced."""

    sha256: bytes
    """Of the file."""
    data_path: DataPathKind
    interfaces: tuple[str, ...]
    unmatched: Unmatched
    ip_forward: IpForward
    rules: int
    """How many of the file are enforced."""
    kernel_rules: tuple[KernelRule, ...]
    """Those of the file, and last the one for what no other matches, if that is discarded."""
    negotiation_rules: tuple[NegotiationRule, ...]
    peers: tuple[Peer, ...]
    manual_sas: tuple[Sa, ...] = ()
    manual_tunnels: tuple[ManualTunnel, ...] = ()
    half_open: HalfOpenLimits = DEFAULT_HALF_OPEN
    ike_workers: int = 1
    compiled: "tuple[CompiledRule, ...]" = field(default=(), repr=False, compare=False)
    """What each rule of the file has become."""


@value
class CompiledRule:
    """A rule of the file, and what the other roles are told of it."""

    selected: Selected
    fingerprint: bytes
    kernel: KernelRule
    negotiation: NegotiationRule | None = None
    """None where no SA is negotiated."""
    sas: tuple[Sa, ...] = field(default=(), repr=False)
    """With fixed keys."""
    tunnel: ManualTunnel | None = None
    """What status shows of them."""


R = TypeVar("R", KernelRule, NegotiationRule)


def with_rules_of(policy: Policy, former: Policy) -> Policy:
    """`policy`, with the very objects of `former` where rules are equal: then they compare and are sent fast."""
    return replace(
        policy,
        kernel_rules=_with_objects_of(policy.kernel_rules, former.kernel_rules),
        negotiation_rules=_with_objects_of(policy.negotiation_rules, former.negotiation_rules),
    )


def _with_objects_of(rules: tuple[R, ...], former: tuple[R, ...]) -> tuple[R, ...]:
    known = {rule.rule_id: rule for rule in former}
    return tuple([old if (old := known.get(rule.rule_id)) is rule or old == rule else rule for rule in rules])


@value
class FromOutside:
    """What the file names and somebody else had to find."""

    hosts: Mapping[str, IpAddress | None] = field(default_factory=dict)
    """Addresses of peers by host name; None where there is none."""
    manual_keys: Mapping[str, ManualKeys] = field(default_factory=dict, repr=False)
    """By peer."""
    facts: Mapping[str, PublicFacts] = field(default_factory=dict)
    """By peer."""


@value
class _Proposals:
    """One set of proposals, and the words that identify it."""

    ike: tuple[IkeProposal, ...]
    esp: tuple[EspProposal, ...]
    ike_text: str
    esp_text: str


@value
class _Compiled:
    """A peer as rules need it."""

    entry: PeerEntry
    address: IpAddress | None
    """None: any."""
    reachable: bool
    """Its host name, if it has one, stands for an address."""
    esp: tuple[EspProposal, ...]
    esp_text: str
    peer: Peer | None
    """None for one with manual keys, or one that can't be reached."""
    print: bytes


@value
class _RuleOf:
    """A rule with its peer, on the way to its id."""

    index: int
    selected: Selected
    sides: Sides
    peer: _Compiled | None
    """None unless the rule protects."""

    @property
    def entry(self) -> RuleEntry:
        return self.selected.rule.entry


def compile_policy(
    draft: Draft,
    selected: Sequence[Selected],
    sha256: bytes,
    rule_ids: RuleIds,
    outside: FromOutside | None = None,
    known: Iterable[CompiledRule] = (),
) -> Policy:
    """The policy of a draft that has no problems, of shape or of meaning; `selected` are its rules with their traffic.

    `known` are rules that were compiled with the same peers, proposals and `outside`: for those that come again, told
    apart as objects, there is no work. ValueError if the draft has problems after all.
    """
    if draft.setup is None:
        raise ValueError("a draft without [setup] can't be compiled")
    compiler = _Compiler(draft, outside or FromOutside())
    before = {id(one.selected): one for one in known}
    rules = compiler.rules_of(selected)
    prints = [
        found.fingerprint if (found := before.get(id(rule.selected))) else compiler.fingerprint(rule) for rule in rules
    ]
    compiled = []
    for rule, fingerprint, rule_id in zip(rules, prints, rule_ids.assign(prints), strict=True):
        one = before.get(id(rule.selected))
        if one is None or (one.kernel.rule_id, one.kernel.position) != (rule_id, rule.index):
            one = compiler.compiled(rule, fingerprint, rule_id)
        compiled.append(one)
    last = (_discard_unmatched(len(selected), rule_ids),) if draft.setup.unmatched is Unmatched.DISCARD else ()
    return Policy(
        sha256=sha256,
        data_path=draft.setup.data_path,
        interfaces=draft.setup.interfaces,
        unmatched=draft.setup.unmatched,
        ip_forward=draft.setup.ip_forward,
        half_open=HalfOpenLimits(
            cookies_from=draft.setup.cookies_from,
            puzzles_from=draft.setup.puzzles_from,
            most=draft.setup.half_open_limit,
            per_address=draft.setup.half_open_per_address,
        ),
        ike_workers=draft.setup.ike_workers,
        rules=len(compiled),
        kernel_rules=(*(one.kernel for one in compiled), *last),
        negotiation_rules=tuple([one.negotiation for one in compiled if one.negotiation is not None]),
        peers=compiler.peers,
        manual_sas=tuple([sa for one in compiled for sa in one.sas]),
        manual_tunnels=tuple([one.tunnel for one in compiled if one.tunnel is not None]),
        compiled=tuple(compiled),
    )


class _Compiler:
    def __init__(self, draft: Draft, outside: FromOutside) -> None:
        self._outside = outside
        self._proposals = {
            name: _Proposals(
                ike=one.ike,
                esp=one.esp,
                ike_text=",".join(ike_words(proposal) for proposal in one.ike),
                esp_text=",".join(esp_words(proposal) for proposal in one.esp),
            )
            for name, one in draft.proposals.items()
        }
        self._peers = {name: self._compiled(name, entry) for name, entry in draft.peers.items()}
        self._tails: dict[tuple[object, ...], bytes] = {}

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(one.peer for one in self._peers.values() if one.peer is not None)

    def rules_of(self, selected: Sequence[Selected]) -> list[_RuleOf]:
        """All rules, but for those that speak of an address that could not be found."""
        rules = []
        for index, one in enumerate(selected):
            entry, sides = one.rule.entry, one.sides
            peer = self._peers[entry.peer or ""] if entry.action is Action.PROTECT else None
            if peer is not None and isinstance(peer.entry.address, HostName) and entry.mode is Mode.TRANSPORT:
                if peer.address is None:
                    continue
                sides = with_peer_at(entry, sides, peer.address)
            rules.append(_RuleOf(index=index, selected=one, sides=sides, peer=peer))
        return rules

    def fingerprint(self, rule: _RuleOf) -> bytes:
        """A hash of all that matters to the SAs of a rule: traffic, action, mode, lifetimes, proposals, and its peer.

        Not its name, its place, or when it is started, and not what follows its SAs' end.
        """
        entry, layers = rule.entry, rule.selected.next_layers
        # `is` for the most, since their equality takes longer than the rest.
        key: tuple[object, ...] = (entry.action, None if layers is ANYTHING else layers, entry.interface)
        if rule.peer is not None:
            key += (
                *(entry.mode, entry.rekey, entry.life, entry.rekey_bytes, entry.life_bytes, entry.rekey_packets),
                *(entry.life_packets, entry.peer, entry.proposals),
            )
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = self._tail(rule)
        spans = b"".join([*(span.print for span in rule.sides.local), b"|", *(s.print for s in rule.sides.remote)])
        return hashlib.sha256(spans + tail).digest()

    def _tail(self, rule: _RuleOf) -> bytes:
        entry, peer = rule.entry, rule.peer
        parts: list[object] = [entry.action.name, entry.interface]
        for layer in rule.selected.next_layers:
            parts += [layer.protocol, layer.local_port, layer.remote_port]
        if peer is not None:
            parts += [entry.mode.name, entry.rekey, entry.life_s(), self._esp(rule, peer).esp_text]
            parts += [entry.rekey_bytes, _life(entry.rekey_bytes, entry.life_bytes)]
            parts += [entry.rekey_packets, _life(entry.rekey_packets, entry.life_packets)]
            parts += [peer.reachable, peer.print.hex()]
        return b"|" + ";".join(map(str, parts)).encode()

    def compiled(self, rule: _RuleOf, fingerprint: bytes, rule_id: int) -> CompiledRule:
        """All that comes of a rule."""
        one, kernel = rule.selected, self._kernel_rule(rule, rule_id)
        if rule.peer is None or kernel.action is not Action.PROTECT:
            return CompiledRule(selected=one, fingerprint=fingerprint, kernel=kernel)
        local = _selectors(rule.sides.local, local_ports(one.next_layers))
        remote = _selectors(rule.sides.remote, remote_ports(one.next_layers))
        if not kernel.manual:
            negotiation = _negotiation_rule(rule, kernel, local, remote)
            return CompiledRule(selected=one, fingerprint=fingerprint, kernel=kernel, negotiation=negotiation)
        peer = rule.entry.peer or ""
        sas = manual.sas_of(rule.peer.entry, kernel, self._outside.manual_keys[peer], local, remote)
        tunnel = manual.tunnel_of(peer, kernel, sas)
        return CompiledRule(selected=one, fingerprint=fingerprint, kernel=kernel, sas=sas, tunnel=tunnel)

    def _kernel_rule(self, rule: _RuleOf, rule_id: int) -> KernelRule:
        entry, sides, peer = rule.entry, rule.sides, rule.peer
        first, *also = rule.selected.next_layers
        return KernelRule(
            rule_id=rule_id,
            name=entry.name,
            position=rule.index,
            # What should be protected and can't be is dropped.
            action=entry.action if peer is None or peer.reachable else Action.DISCARD,
            protocol=first.protocol,
            local=_prefixes(sides.local),
            remote=_prefixes(sides.remote),
            local_port=first.local_port,
            remote_port=first.remote_port,
            mode=entry.mode,
            local_address=None if peer is None else peer.entry.local_address,
            peer_address=None if peer is None else peer.address,
            esp_proposals=() if peer is None else self._esp(rule, peer).esp,
            interface=entry.interface,
            manual=peer is not None and peer.entry.manual,
            also=tuple(also),
        )

    def _esp(self, rule: _RuleOf, peer: _Compiled) -> "_Proposals | _Compiled":
        return peer if rule.entry.proposals is None else self._proposals[rule.entry.proposals]

    def _compiled(self, name: str, entry: PeerEntry) -> _Compiled:
        address = self._outside.hosts.get(entry.address) if isinstance(entry.address, HostName) else entry.address
        reachable = address is not None or entry.address is None
        if entry.manual:
            esp: tuple[EspProposal, ...] = () if entry.algorithm is None else (entry.algorithm,)
            printed = _manual_fingerprint(name, entry, self._outside.manual_keys[name])
            peer, esp_text = None, ",".join(map(esp_words, esp))
        else:
            proposals = self._proposals[entry.proposals]
            full = _peer(name, entry, address, proposals.ike, self._outside.facts.get(name, _NO_FACTS))
            printed = peer_fingerprint(full, proposals.ike_text)
            peer, esp, esp_text = (full if reachable else None), proposals.esp, proposals.esp_text
        return _Compiled(
            entry=entry, address=address, reachable=reachable, esp=esp, esp_text=esp_text, peer=peer, print=printed
        )


def _negotiation_rule(
    rule: _RuleOf, kernel: KernelRule, local: tuple[TrafficSelector, ...], remote: tuple[TrafficSelector, ...]
) -> NegotiationRule:
    entry = rule.entry
    return NegotiationRule(
        rule_id=kernel.rule_id,
        name=kernel.name,
        position=kernel.position,
        peer=entry.peer or "",
        mode=kernel.mode,
        local=local,
        remote=remote,
        esp_proposals=kernel.esp_proposals,
        start=StartAction.RESPOND_ONLY if kernel.peer_address is None else entry.start,
        rekey_s=entry.rekey,
        life_s=entry.life_s(),
        rekey_bytes=entry.rekey_bytes,
        life_bytes=_life(entry.rekey_bytes, entry.life_bytes),
        rekey_packets=entry.rekey_packets,
        life_packets=_life(entry.rekey_packets, entry.life_packets),
        close_action=entry.close,
        idle_s=entry.idle,
    )


def _life(soft: int, hard: int | None) -> int:
    return int(soft * LIFE_PER_REKEY) if hard is None else hard


def _discard_unmatched(position: int, rule_ids: RuleIds) -> KernelRule:
    """The rule behind all others: RFC 4301 section 4.4.1 wants what no rule matches to be discarded."""
    (rule_id,) = rule_ids.assign([hashlib.sha256(b"unmatched").digest()])
    return KernelRule(
        rule_id=rule_id,
        name="(unmatched)",
        position=position,
        action=Action.DISCARD,
        protocol=0,
        local=_prefixes(ANY),
        remote=_prefixes(ANY),
        local_port=ANY_PORT,
        remote_port=ANY_PORT,
        mode=Mode.TUNNEL,
        local_address=None,
        peer_address=None,
        esp_proposals=(),
        unmatched=True,
    )


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
        peer.remote_auth,
        *(f"{one.encoding} {one.data.hex()}" for one in peer.certificate_requests),
        peer.force_encapsulation,
        ike,
    ):
        text = str(part).encode()
        hashed.update(b"%d:" % len(text) + text)
    return hashed.digest()


def _manual_fingerprint(name: str, entry: PeerEntry, keys: ManualKeys) -> bytes:
    """As `peer_fingerprint`; the keys are in it, of which a rule id tells 20 bits of a hash."""
    parts = (name, entry.address, entry.local_address, entry.spi_in, entry.spi_out)
    hashed = hashlib.sha256(";".join(map(str, parts)).encode())
    for key in (keys.inward, keys.outward):
        hashed.update(hashlib.sha256(key.reveal()).digest())
    return hashed.digest()


_METHODS = {
    AuthKind.PSK: AuthMethod.PSK,
    AuthKind.CERTIFICATE: AuthMethod.DIGITAL_SIGNATURE,
    AuthKind.PUBLIC_KEY: AuthMethod.DIGITAL_SIGNATURE,
}
"""As the worker sees it."""
_NO_FACTS = PublicFacts(local_id=None, certificate_requests=())


def _own_identity(said: Identity | None, certified: Identity | None) -> Identity | None:
    """A DN is sent as our certificate has it, down to its string types: some peers compare octets."""
    if said is None or (certified is not None and matches(said, certified)):
        return certified
    return said


def _peer(
    name: str, entry: PeerEntry, address: IpAddress | None, ike: tuple[IkeProposal, ...], facts: PublicFacts
) -> Peer:
    local_id, remote_id = _own_identity(entry.local_identity(), facts.local_id), entry.remote_identity()
    if local_id is None or remote_id is None or entry.auth is None or entry.remote_kind is None:
        raise ValueError(f"peer {name} lacks an identity or a way to authenticate")
    return Peer(
        name=name,
        address=address,
        local_address=entry.local_address,
        local_id=local_id,
        remote_id=remote_id,
        auth=_METHODS[entry.auth],
        remote_auth=_METHODS[entry.remote_kind],
        certificate_requests=facts.certificate_requests,
        ike_proposals=ike,
        force_encapsulation=entry.force_encapsulation,
        liveness_s=entry.liveness,
        rekey_s=entry.ike_rekey,
        reauth_s=entry.reauth,
        liveness_action=entry.liveness_action,
        fragmentation=entry.fragmentation,
        childless=entry.childless,
    )


def _prefixes(spans: Spans) -> tuple[Prefix, ...]:
    return spans[0].prefixes if len(spans) == 1 else tuple(prefix for span in spans for prefix in span.prefixes)


def _selectors(spans: Spans, ports: Sequence[ProtocolPorts]) -> tuple[TrafficSelector, ...]:
    return tuple(
        [
            TrafficSelector(
                protocol=protocol,
                start_address=span.first,
                end_address=span.last,
                start_port=range_of.first,
                end_port=range_of.last,
            )
            for protocol, range_of in ports
            for span in spans
        ]
    )
