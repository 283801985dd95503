"""What a policy means: whether its parts fit together, beyond each having the right shape (RFC 4301 section 4.4)."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from ipc.algorithms import WEAK_WORDS
from ipc.identities import is_pattern
from ipc.messages import MAX_NEXT_LAYERS
from ipc.types import Action, Mode, StartAction
from ipc.value import value
from policy_loader import shadows
from policy_loader.addresses import Spans, span_of_host
from policy_loader.authentication import check_authentication
from policy_loader.credentials.store import AuthKind
from policy_loader.errors import MOST_PROBLEMS, Key, Problem, nearest, printable
from policy_loader.manual import check_manual_peer
from policy_loader.model import (
    ACTIONS,
    DEFAULT_PORTS,
    MANUAL_PEER_KEYS,
    NEGOTIATED_ONLY,
    PROTECT_ONLY,
    Draft,
    PeerEntry,
    Reference,
    Rule,
    RuleEntry,
)
from policy_loader.proposals import esp_words, ike_words
from policy_loader.selectors import (
    ANYTHING,
    ProtocolPorts,
    Selected,
    aligned_blocks,
    icmp_ports,
    local_ports,
    remote_ports,
    select,
)
from policy_loader.unmatchable import why_never
from policy_loader.values import ICMP, ICMPV6, PROTOCOLS_WITH_PORTS, HostName

MOST_SELECTORS = 64
"""Addresses, prefixes and ranges on one side of a protect rule: so many go into an IKE message (ipc's bound)."""
MOST_FLOWS = 65_536
"""Pairs of prefixes, times those of masked ports, of one rule."""
MOST_RULES = 262_144
"""A quarter of the rule ids, so that a changed rule always finds a fresh one."""

Say = Callable[[Key, str], None]


@value
class Findings:
    """`problems` forbid the policy; `warnings` are what an operator would want to know."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    selected: tuple[Selected, ...]
    """All rules of the draft with their traffic, in order."""


@value
class WasChecked:
    """A draft in which nothing was wrong, and what there was to find."""

    draft: Draft
    findings: Findings

    def rules_for(self, draft: Draft) -> Mapping[int, Selected]:
        """By the identities of its rules, those about which in `draft` too there is nothing to say."""
        mine = self.draft
        if (mine.setup, mine.peers, mine.named_proposals) != (draft.setup, draft.peers, draft.named_proposals):
            return {}
        doubtful = {warning.key[1] for warning in self.findings.warnings if warning.key[0] == "rules"}
        return {id(one.rule): one for one in self.findings.selected if one.rule.index not in doubtful}


def check(draft: Draft, former: WasChecked | None = None) -> Findings:
    """All that is wrong with the meaning of those parts of `draft` that have a good shape.

    Rules that are the very objects of `former` are not looked at again, where nothing else has changed for them.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def wrong(key: Key, text: str) -> None:
        problems.append(Problem(key=key, text=text))

    def doubtful(key: Key, text: str) -> None:
        warnings.append(Problem(key=key, text=text))

    _check_proposals(draft, doubtful)
    _check_peers(draft, wrong, doubtful)
    _check_names(draft.rules, wrong)
    _check_count(draft.rules, wrong)
    known = {} if former is None else former.rules_for(draft)
    selected = []
    settled = []
    for rule in draft.rules:
        if len(problems) >= MOST_PROBLEMS:
            break
        peer = draft.peers.get(rule.entry.peer) if rule.entry.peer is not None else None
        one = known.get(id(rule))
        if one is None:
            one = select(rule, peer)
            _check_rule(one, peer, draft, wrong, doubtful)
        selected.append(one)
        if peer is None or not isinstance(peer.address, HostName) or rule.entry.mode is Mode.TUNNEL:
            settled.append(one)
    for reference in draft.damaged[:MOST_PROBLEMS]:
        _check_reference(reference, draft, wrong)
    _check_shadows(settled, doubtful)
    return Findings(problems=tuple(problems), warnings=tuple(warnings), selected=tuple(selected))


def _check_reference(reference: Reference, draft: Draft, wrong: Say) -> None:
    peer, proposals = reference.peer, reference.proposals
    if peer is not None and peer not in draft.named_peers:
        text = f"there is no [peers.{printable(peer)}]; {nearest(peer, draft.named_peers)}"
        wrong((*reference.key, "peer"), text)
    if proposals is not None and proposals not in draft.named_proposals:
        text = f"there is no [proposals.{printable(proposals)}]; {nearest(proposals, draft.named_proposals)}"
        wrong((*reference.key, "proposals"), text)


def _check_proposals(draft: Draft, doubtful: Say) -> None:
    for name, proposals in draft.proposals.items():
        words = [("ike", index, ike_words(one)) for index, one in enumerate(proposals.ike)]
        words += [("esp", index, esp_words(one)) for index, one in enumerate(proposals.esp)]
        for kind, index, text in words:
            named = text.split("-")
            for word in named:
                # The PRF that follows from a weak hash is not told of as well.
                if word in WEAK_WORDS and word.removeprefix("prf") not in set(named) - {word}:
                    doubtful(("proposals", name, kind, index), f'"{word}" is weak: {WEAK_WORDS[word]}')


# ------------------------------------------------------------- peers


def _check_peers(draft: Draft, wrong: Say, doubtful: Say) -> None:
    uses = Counter(rule.entry.peer for rule in draft.rules)
    seen: dict[tuple[object, ...], str] = {}
    for name, peer in draft.peers.items():
        key = ("peers", name)
        if not uses[name]:
            doubtful(key, "no rule uses this peer")
        if peer.manual:
            check_manual_peer(key, peer, uses[name], wrong)
            continue
        _check_peer(key, peer, draft, wrong)
        same = (peer.address, peer.local_address, peer.local_identity(), peer.remote_identity())
        if same in seen:
            wrong(key, f'can\'t be told from peer "{seen[same]}": same addresses and identities')
        seen[same] = name


def _check_peer(key: Key, peer: PeerEntry, draft: Draft, wrong: Say) -> None:
    check_authentication(key, peer, wrong)
    for name in MANUAL_PEER_KEYS:
        if name in peer.given:
            wrong((*key, name), 'only a peer with auth = "manual" has this: leave it out')
    check_ends(key, peer, wrong)
    local_id, remote_id = peer.local_identity(), peer.remote_identity()
    if local_id is not None and is_pattern(local_id):
        wrong((*key, "local_id"), f"{local_id} stands for many: write who we are, without a wildcard")
    if local_id is None and peer.auth is not AuthKind.CERTIFICATE:
        wrong((*key, "local_id"), "is missing: write who we are to this peer, or local_address, which then says it")
    if remote_id is None:
        wrong((*key, "remote_id"), 'is missing: a peer with address = "any" is known by its identity alone')
    elif local_id == remote_id and peer.local_address != peer.address:
        wrong((*key, "remote_id"), "is our own identity too: each side needs one of its own")
    _check_reference(Reference(key=key, peer=None, proposals=peer.proposals), draft, wrong)


def check_ends(key: Key, peer: PeerEntry, wrong: Say) -> None:
    """Whether the two addresses of a peer go together."""
    theirs = peer.address
    if peer.local_address is None or theirs is None or isinstance(theirs, HostName):
        return
    if peer.local_address.version != theirs.version:
        wrong((*key, "local_address"), f"must be IPv{theirs.version}, as the peer's address {theirs} is")
    elif peer.local_address == theirs:
        wrong((*key, "local_address"), "is the peer's address too")


# ------------------------------------------------------------- rules


def _check_count(rules: Collection[Rule], wrong: Say) -> None:
    if len(rules) > MOST_RULES:
        wrong(("rules",), f"there are {len(rules)} rules, at most {MOST_RULES} are allowed")


def _check_names(rules: Iterable[Rule], wrong: Say) -> None:
    seen = set()
    for rule in rules:
        if rule.entry.name in seen:
            wrong((*rule.key, "name"), f'an earlier rule is called "{rule.entry.name}" too')
        seen.add(rule.entry.name)


def _check_rule(one: Selected, peer: PeerEntry | None, draft: Draft, wrong: Say, doubtful: Say) -> None:
    entry, key, sides = one.rule.entry, one.rule.key, one.sides
    if not sides.local:
        wrong((*key, "local"), "local and remote have no address family in common, so no packet can match")
    for span in sides.left_out if sides.local else ():
        side = "local" if entry.local and span in entry.local else "remote"
        doubtful((*key, side), f"{span} has no partner of its family on the other side and is not covered")
    if one.next_layers is not ANYTHING or entry.icmp_type:
        _check_ports(entry, key, wrong)
    if one.next_layers is not ANYTHING or len(sides.local) > 1 or len(sides.remote) > 1:
        _check_flows(one, wrong)
    never = why_never(one) if sides.local else ""
    if never:
        doubtful(key, f'"{entry.name}" can never match: {never}')
    if entry.interface and draft.setup is not None and entry.interface not in draft.setup.interfaces:
        known = nearest(entry.interface, draft.setup.interfaces)
        text = f'"{entry.interface}" is not one of [setup] interfaces; {known}'
        wrong((*key, "interface"), text)
    if entry.action is Action.PROTECT:
        _check_protect(one, peer, draft, wrong)
    elif not entry.given.isdisjoint(PROTECT_ONLY):
        for name in PROTECT_ONLY:
            if name in entry.given:
                wrong((*key, name), 'only a rule with action = "protect" has this: leave it out')


def _check_ports(entry: RuleEntry, key: Key, wrong: Say) -> None:
    if not PROTOCOLS_WITH_PORTS.issuperset(entry.protocol):
        for name, ports in (("local_port", entry.local_port), ("remote_port", entry.remote_port)):
            if ports != DEFAULT_PORTS:
                wrong((*key, name), "ports need a protocol that has them: tcp, udp, sctp, dccp or udplite")
    if not entry.icmp_type:
        return
    if not {ICMP, ICMPV6}.issuperset(entry.protocol):
        wrong((*key, "icmp_type"), 'needs protocol = "icmp" or protocol = "icmpv6"')
        return
    for protocol in entry.protocol:
        if not icmp_ports(entry, protocol):
            family, other = ("ICMP", "ICMPv6") if protocol == ICMP else ("ICMPv6", "ICMP")
            wrong(
                (*key, "icmp_type"), f"{family} has no such type, {other} has: write its number, or the other protocol"
            )


def _check_flows(one: Selected, wrong: Say) -> None:
    """The kernel has a policy for each pair of prefixes and of masked ports: there must not be endlessly many."""
    layers = len(one.next_layers)
    if layers > MAX_NEXT_LAYERS:
        text = f"it has {layers} combinations of protocols and ports, at most {MAX_NEXT_LAYERS} are allowed"
        wrong(one.rule.key, f"{text}: split the rule")
        return
    flows = one.sides.pairs() * sum(
        aligned_blocks(layer.local_port) * aligned_blocks(layer.remote_port) for layer in one.next_layers
    )
    if flows > MOST_FLOWS:
        text = f"it takes {flows} policies of the kernel in each direction, at most {MOST_FLOWS} are allowed"
        wrong(one.rule.key, f"{text}: split the rule, or write wider prefixes or ranges")


def _check_protect(one: Selected, peer: PeerEntry | None, draft: Draft, wrong: Say) -> None:
    entry, key = one.rule.entry, one.rule.key
    if entry.peer is None:
        wrong((*key, "peer"), "is missing: a protect rule names the peer that its tunnel leads to")
    if entry.peer not in draft.peers or entry.proposals is not None:
        _check_reference(Reference(key=key, peer=entry.peer, proposals=entry.proposals), draft, wrong)
    _check_side((*key, "local"), one.sides.local, local_ports(one.next_layers), wrong)
    _check_side((*key, "remote"), one.sides.remote, remote_ports(one.next_layers), wrong)
    if peer is not None and peer.manual:
        for name in NEGOTIATED_ONLY:
            if name in entry.given:
                wrong((*key, name), "manual keys are never negotiated: leave it out")
        if entry.mode is Mode.TRANSPORT and one.sides.local:
            _check_transport(key, entry, peer, wrong)
        return
    _check_lifetimes(key, entry, wrong)
    if peer is None:
        return
    if peer.address is None and entry.start is not StartAction.RESPOND_ONLY and "start" in entry.given:
        wrong((*key, "start"), 'a peer with address = "any" can\'t be called: write "respond-only", or leave it out')
    if entry.mode is Mode.TRANSPORT and one.sides.local:
        _check_transport(key, entry, peer, wrong)


def _check_side(key: Key, spans: Spans, ports: Sequence[ProtocolPorts], wrong: Say) -> None:
    count = len(spans) * len(ports)
    if count > MOST_SELECTORS:
        text = f"a protect rule has at most {MOST_SELECTORS} prefixes and ranges on a side"
        if len(ports) > 1:
            text = f"{len(spans)} prefixes and ranges with {len(ports)} protocols and ports are {count} traffic"
            text += f" selectors, and a protect rule has at most {MOST_SELECTORS} on a side"
        wrong(key, f"{text}: split the rule")


def _check_lifetimes(key: Key, entry: RuleEntry, wrong: Say) -> None:
    life_s = entry.life_s()
    if life_s and entry.rekey >= life_s:
        wrong((*key, "life"), f"must be longer than rekey ({entry.rekey:g} s), or the SA ends before it is replaced")
    if life_s == 0.0 and entry.rekey == 0.0:
        wrong((*key, "life"), "rekey and life can't both be 0: keys would be used for ever")
    for unit, soft, hard in (
        ("bytes", entry.rekey_bytes, entry.life_bytes),
        ("packets", entry.rekey_packets, entry.life_packets),
    ):
        if hard and soft >= hard:
            text = f"must be more than rekey_{unit} ({soft}), or the SA ends before it is replaced"
            wrong((*key, f"life_{unit}"), text)


def _check_transport(key: Key, entry: RuleEntry, peer: PeerEntry, wrong: Say) -> None:
    theirs = peer.address
    if theirs is None:
        wrong((*key, "mode"), 'transport mode needs to know the peer\'s address, which is "any": write "tunnel"')
    elif isinstance(theirs, HostName):
        if entry.remote is not None:
            wrong((*key, "remote"), f"in transport mode this is the peer itself, {theirs}: leave it out")
    elif entry.remote is not None and entry.remote != (span_of_host(theirs),):
        wrong((*key, "remote"), f'in transport mode this is the peer itself: leave it out, or write ["{theirs}"]')
    if entry.local is None:
        return
    local = (span_of_host(peer.local_address),) if peer.local_address is not None else None
    if len(entry.local) != 1 or entry.local[0].first != entry.local[0].last:
        wrong((*key, "local"), "in transport mode this is our own address, one: leave it out, or write just that")
    elif local is not None and entry.local != local:
        wrong((*key, "local"), f"in transport mode this is the peer's local_address, {peer.local_address}")


def _check_shadows(selected: Iterable[Selected], doubtful: Say) -> None:
    words = {action: word for word, action in ACTIONS.items()}
    for shadow in shadows.find(selected):
        rule, earlier = shadow.rule.rule.entry, shadow.earlier.rule.entry
        text = f'"{rule.name}" can never match: rules above it, such as "{earlier.name}", take all its packets'
        if rule.action is not earlier.action:
            text += f'. They contradict each other: "{earlier.name}" says {words[earlier.action]}, '
            text += f'"{rule.name}" {words[rule.action]}'
        doubtful(shadow.rule.rule.key, text)
