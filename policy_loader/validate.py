"""What a policy means: whether its parts fit together, beyond each having the right shape (RFC 4301 section 4.4)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ipc.types import ANY_PORT, Action, Mode
from policy_loader import shadows
from policy_loader.errors import MOST_PROBLEMS, Key, Problem, nearest, printable
from policy_loader.model import PROTECT_ONLY, Draft, PeerEntry, Reference, Rule, RuleEntry, Setup
from policy_loader.selectors import Selected, Sides, host, sides_of
from policy_loader.values import PROTOCOLS_WITH_PORTS

MOST_SELECTORS = 64
"""Prefixes on one side of a protect rule: so many traffic selectors go into an IKE message (ipc's bound)."""
MOST_RULES = 262_144
"""A quarter of the rule ids, so that a changed rule always finds a fresh one."""

Say = Callable[[Key, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """`problems` forbid the policy; `warnings` are what an operator would want to know."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    selected: tuple[Selected, ...]
    """All rules of the draft with their traffic, in order."""


def check(draft: Draft) -> Findings:
    """All that is wrong with the meaning of those parts of `draft` that have a good shape."""
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def wrong(key: Key, text: str) -> None:
        problems.append(Problem(key=key, text=text))

    def doubtful(key: Key, text: str) -> None:
        warnings.append(Problem(key=key, text=text))

    if draft.setup is not None:
        _check_setup(draft.setup, wrong)
    _check_peers(draft, wrong, doubtful)
    _check_names(draft.rules, wrong)
    if len(draft.rules) > MOST_RULES:
        wrong(("rules",), f"there are {len(draft.rules)} rules, at most {MOST_RULES} are allowed")
    selected = []
    for rule in draft.rules:
        if len(problems) >= MOST_PROBLEMS:
            break
        sides = sides_of(rule.entry, _peer_of(rule, draft))
        _check_rule(rule, sides, draft, wrong, doubtful)
        selected.append(Selected(rule=rule, sides=sides))
    for reference in draft.damaged[:MOST_PROBLEMS]:
        _check_reference(reference, draft, wrong)
    for shadow in shadows.find(selected):
        earlier = shadow.earlier.entry.name
        doubtful(
            shadow.rule.key,
            f'"{shadow.rule.entry.name}" can never match: rules above it, such as "{earlier}", take all its packets',
        )
    return Findings(problems=tuple(problems), warnings=tuple(warnings), selected=tuple(selected))


def _check_setup(setup: Setup, wrong: Say) -> None:
    seen = set()
    for index, name in enumerate(setup.interfaces):
        if name in seen:
            wrong(("setup", "interfaces", index), f'"{name}" stands there twice')
        seen.add(name)


def _check_peers(draft: Draft, wrong: Say, doubtful: Say) -> None:
    used = {rule.entry.peer for rule in draft.rules}
    seen: dict[tuple[object, ...], str] = {}
    for name, peer in draft.peers.items():
        key = ("peers", name)
        _check_peer(key, peer, draft, wrong)
        if name not in used:
            doubtful(key, "no rule uses this peer")
        same = (peer.address, peer.local_address, peer.local_identity(), peer.remote_identity())
        if same in seen:
            wrong(key, f'can\'t be told from peer "{seen[same]}": same addresses and identities')
        seen[same] = name


def _check_peer(key: Key, peer: PeerEntry, draft: Draft, wrong: Say) -> None:
    if (peer.psk is None) is (peer.psk_file is None):
        both = "stand there both: keep one" if peer.psk else "are missing: write one of the two"
        wrong((*key, "psk"), f"psk and psk_file {both}")
    if peer.local_address is not None and peer.local_address.version != peer.address.version:
        wrong((*key, "local_address"), f"must be IPv{peer.address.version}, as the peer's address {peer.address} is")
    if peer.local_address == peer.address:
        wrong((*key, "local_address"), "is the peer's address too")
    if peer.local_id is None and peer.local_address is None:
        wrong((*key, "local_id"), "is missing: write who we are to this peer, or local_address, which then says it")
    elif peer.local_identity() == peer.remote_identity() and peer.local_address != peer.address:
        wrong((*key, "remote_id"), "is our own identity too: each side needs one of its own")
    _check_reference(Reference(key=key, peer=None, proposals=peer.proposals), draft, wrong)


def _check_reference(reference: Reference, draft: Draft, wrong: Say) -> None:
    peer, proposals = reference.peer, reference.proposals
    if peer is not None and peer not in draft.named_peers:
        text = f"there is no [peers.{printable(peer)}]; {nearest(peer, draft.named_peers)}"
        wrong((*reference.key, "peer"), text)
    if proposals is not None and proposals not in draft.named_proposals:
        text = f"there is no [proposals.{printable(proposals)}]; {nearest(proposals, draft.named_proposals)}"
        wrong((*reference.key, "proposals"), text)


def _check_names(rules: Iterable[Rule], wrong: Say) -> None:
    seen = set()
    for rule in rules:
        if rule.entry.name in seen:
            wrong((*rule.key, "name"), f'an earlier rule is called "{rule.entry.name}" too')
        seen.add(rule.entry.name)


def _peer_of(rule: Rule, draft: Draft) -> PeerEntry | None:
    return None if rule.entry.peer is None else draft.peers.get(rule.entry.peer)


def _check_rule(rule: Rule, sides: Sides, draft: Draft, wrong: Say, doubtful: Say) -> None:
    entry, key = rule.entry, rule.key
    if not sides.local:
        wrong((*key, "local"), "local and remote have no address family in common, so no packet can match")
    for prefix in sides.left_out if sides.local else ():
        side = "local" if entry.local and prefix in entry.local else "remote"
        doubtful((*key, side), f"{prefix} has no partner of its family on the other side and is not covered")
    if entry.protocol not in PROTOCOLS_WITH_PORTS:
        for name in ("local_port", "remote_port"):
            if getattr(entry, name) != ANY_PORT:
                wrong((*key, name), "ports need a protocol that has them: tcp, udp, sctp, dccp or udplite")
    if entry.action is Action.PROTECT:
        _check_protect(rule, sides, draft, wrong)
        return
    for name in PROTECT_ONLY:
        if name in entry.model_fields_set:
            wrong((*key, name), 'only a rule with action = "protect" has this: leave it out')


def _check_protect(rule: Rule, sides: Sides, draft: Draft, wrong: Say) -> None:
    entry, key = rule.entry, rule.key
    if entry.peer is None:
        wrong((*key, "peer"), "is missing: a protect rule names the peer that its tunnel leads to")
    _check_reference(Reference(key=key, peer=entry.peer, proposals=entry.proposals), draft, wrong)
    life_s = entry.life_s()
    if life_s and entry.rekey >= life_s:
        wrong((*key, "life"), f"must be longer than rekey ({entry.rekey:g} s), or the SA ends before it is replaced")
    if life_s == 0.0 and entry.rekey == 0.0:
        wrong((*key, "life"), "rekey and life can't both be 0: keys would be used for ever")
    for name, prefixes in (("local", sides.local), ("remote", sides.remote)):
        if len(prefixes) > MOST_SELECTORS:
            wrong((*key, name), f"a protect rule has at most {MOST_SELECTORS} prefixes on a side: split the rule")
    peer = _peer_of(rule, draft)
    if entry.mode is Mode.TRANSPORT and peer is not None and sides.local:
        _check_transport(key, entry, peer, wrong)


def _check_transport(key: Key, entry: RuleEntry, peer: PeerEntry, wrong: Say) -> None:
    if entry.remote is not None and entry.remote != [host(peer.address)]:
        wrong((*key, "remote"), f'in transport mode this is the peer itself: leave it out, or write ["{peer.address}"]')
    if entry.local is None:
        return
    local = host(peer.local_address) if peer.local_address is not None else None
    if len(entry.local) != 1 or entry.local[0].length != entry.local[0].address.max_prefixlen:
        wrong((*key, "local"), "in transport mode this is our own address, one: leave it out, or write just that")
    elif local is not None and entry.local[0] != local:
        wrong((*key, "local"), f"in transport mode this is the peer's local_address, {peer.local_address}")
