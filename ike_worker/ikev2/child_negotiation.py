"""What IKE_AUTH and CREATE_CHILD_SA have in common: offering, accepting and making a Child SA. RFC 7296 section 1.3."""

import math
from dataclasses import replace

from ike_worker.ikev2.child_sa import SWITCH_OUTBOUND_S, ChildSa, make_sa
from ike_worker.ikev2.context import Context, Work
from ike_worker.ikev2.crypto.keymat import ChildKeys, ChildSuite, derive_child_keys
from ike_worker.ikev2.errors import MalformedMessage, Refused
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.features import nat_traversal
from ike_worker.ikev2.features.elsewhere import carries
from ike_worker.ikev2.features.handover import standing
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.selection import (
    MAX_SELECTORS,
    ChosenChild,
    choose_esp,
    esp_answer,
    is_subset,
    narrow,
    offer_esp,
    overlap,
    with_groups,
)
from ike_worker.ikev2.states import ChildState
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wire.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from ike_worker.ikev2.wish import Wish
from ipc.algorithms import EspProposal
from ipc.messages import NegotiationRule, Sa
from ipc.types import Direction, Mode, StartAction, TrafficSelector
from ipc.value import value

MAX_PARTS = 16
"""In how many Child SAs a responder may cut what we ask for."""


@value
class Agreement:
    """What both sides agreed on for a Child SA; selectors from our side."""

    rule: NegotiationRule
    chosen: ChosenChild
    local: tuple[TrafficSelector, ...]
    remote: tuple[TrafficSelector, ...]
    more_possible: bool = False
    """Another rule covers more of what was asked for: that takes a Child SA of its own."""

    @property
    def suite(self) -> ChildSuite:
        """Its algorithms."""
        return self.chosen.suite


@value
class SaPair:
    """Both directions of a Child SA."""

    inbound: Sa
    outbound: Sa


# ------------------------------------------------------------------ initiator


def proposals_for(sa: IkeSa, rule: NegotiationRule, *, fresh: bool) -> tuple[EspProposal, ...]:
    """The proposals of `rule`; with `fresh`, and where they name no groups, with those of the IKE SA.

    Whether rekeys have a key exchange shows only in the first of them: IKE_AUTH negotiates no group (RFC 7296 section
    1.2). Many peers insist on one, and fresh secrets are never the worse choice.
    """
    if not fresh:
        return rule.esp_proposals
    offered = (group for proposal in sa.peer.ike_proposals for group in proposal.key_exchange)
    return with_groups(rule.esp_proposals, tuple(dict.fromkeys((sa.keyed.suite.key_exchange, *offered))))


def offer(
    sa: IkeSa, rule: NegotiationRule, wish: Wish, spi: int, *, key_exchange: bool, old: ChildSa | None = None
) -> list[Payload]:
    """SA, TSi, TSr and perhaps USE_TRANSPORT_MODE of a request.

    The packet that asked for it stands first (RFC 7296 section 2.9); a rekey asks for just what there is (2.9.2).
    """
    local, remote = offered_selectors(rule, wish) if old is None else (old.inbound.local, old.inbound.remote)
    payloads: list[Payload] = [
        offer_esp(proposals_for(sa, rule, fresh=wish.fresh), spi, key_exchange=key_exchange),
        TrafficSelectorsInitiator(selectors=local),
        TrafficSelectorsResponder(selectors=remote),
    ]
    if rule.mode is Mode.TRANSPORT:
        payloads.append(Notify(type=NotifyType.USE_TRANSPORT_MODE))
    return payloads


_USEFUL = frozenset({ChildState.INBOUND, ChildState.INSTALLED, ChildState.REKEYING})


def is_served(sa: IkeSa, wish: Wish) -> bool:
    """Whether a Child SA of `sa`, or one that is just taking over from it, would do for what a CREATE_CHILD wants."""
    for child in sa.children.values():
        if child.rule_id == wish.rule_id and child.state in _USEFUL:
            packets = [(wish.packet_local, child.inbound.local), (wish.packet_remote, child.inbound.remote)]
            if all(packet is None or is_subset((packet,), selectors) for packet, selectors in packets):
                return True
    return False


def offered_selectors(
    rule: NegotiationRule, wish: Wish
) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    """TSi and TSr of our request."""
    local, remote = _of_packet(wish.packet_local, rule.local), _of_packet(wish.packet_remote, rule.remote)
    if wish.single_pair and local is not None and remote is not None:
        return (local,), (remote,)
    return _led_by(local, rule.local), _led_by(remote, rule.remote)


_ICMP, _ICMPV6 = 1, 58


def _of_packet(packet: TrafficSelector | None, rule: tuple[TrafficSelector, ...]) -> TrafficSelector | None:
    """What to ask for on account of a packet; None if the rule does not cover it: its answer would be outside, too.

    For ICMP all types, if the rule has them: there are peers that grant the first selector and no more, and the answer
    to an echo request is of another type.
    """
    if packet is None:
        return None
    wanted = [replace(packet, start_port=0, end_port=65535)] if packet.protocol in (_ICMP, _ICMPV6) else []
    return next((one for one in (*wanted, packet) if is_subset((one,), rule)), None)


def _led_by(packet: TrafficSelector | None, rule: tuple[TrafficSelector, ...]) -> tuple[TrafficSelector, ...]:
    return rule if packet is None else (packet, *(one for one in rule if one != packet))


def as_single_pair(wish: Wish) -> Wish | None:
    """What to ask a responder for that wants a single pair of addresses in each Child SA: the packet's, if any."""
    if wish.single_pair or wish.packet_local is None or wish.packet_remote is None:
        return None
    return replace(wish, single_pair=True)


def rest_to_ask_for(agreement: Agreement, contents: Contents, wish: Wish) -> Wish | None:
    """What to ask for beside `agreement`: the responder would grant more, in another Child SA (2.9).

    For a rule that is to be up; with the others the next packet asks.
    """
    rule = agreement.rule
    more = contents.notify(NotifyType.ADDITIONAL_TS_POSSIBLE) is not None
    if not more or rule.start is not StartAction.AT_START or wish.attempts >= MAX_PARTS:
        return None
    local = next((one for one in rule.local if not overlap((one,), agreement.local)), None)
    remote = next((one for one in rule.remote if not overlap((one,), agreement.remote)), None)
    if local is None and remote is None:
        return None
    return replace(
        wish,
        acquire_id=0,
        packet_local=local or rule.local[0],
        packet_remote=remote or rule.remote[0],
        attempts=wish.attempts + 1,
    )


def conclude(
    sa: IkeSa, rule: NegotiationRule, contents: Contents, *, key_exchange: bool, fresh: bool = False
) -> Agreement:
    """What the responder chose of our offer. Refused where that is not ours to accept."""
    payload = contents.need(SecurityAssociation)
    if len(payload.proposals) != 1:
        raise MalformedMessage(f"the responder chose {len(payload.proposals)} proposals")
    chosen = choose_esp(proposals_for(sa, rule, fresh=fresh), payload, key_exchange=key_exchange)
    if chosen is None or not is_single_choice(payload):
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "the responder chose what was not offered")
    local, remote = nat_traversal.as_we_see_them(
        sa.path,
        rule.mode,
        local=contents.need(TrafficSelectorsInitiator).selectors,
        remote=contents.need(TrafficSelectorsResponder).selectors,
    )
    if not is_subset(local, rule.local) or not is_subset(remote, rule.remote):
        raise Refused(NotifyType.TS_UNACCEPTABLE, "the responder's traffic selectors are not within those offered")
    transport = contents.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    if transport is not (rule.mode is Mode.TRANSPORT):
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "the responder chose another mode than was offered")
    return Agreement(rule=rule, chosen=chosen, local=local, remote=remote)


def is_single_choice(payload: SecurityAssociation) -> bool:
    """Whether a responder's proposal has one transform of each type (RFC 7296 section 3.3)."""
    types = [transform.type for transform in payload.proposals[0].transforms]
    return len(types) == len(set(types))


# ------------------------------------------------------------------ responder


def accept(
    context: Context, sa: IkeSa, contents: Contents, *, key_exchange: bool, group: int | None, rule_id: int = 0
) -> Agreement:
    """What we grant of the initiator's offer: by `rule_id` if it rekeys, else by the first rule that fits.

    Refused with NO_PROPOSAL_CHOSEN or TS_UNACCEPTABLE.
    """
    payload = contents.need(SecurityAssociation)
    remote = contents.need(TrafficSelectorsInitiator).selectors
    local = contents.need(TrafficSelectorsResponder).selectors
    transport = contents.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    rules = _candidates(context, sa, local, remote, rule_id)
    if not rules:
        own_rules = [rule for rule in context.policy.rules_of(sa.peer) if rule_id in (0, rule.rule_id)]
        context.reasons.selectors_refused(context.now, sa, own_rules, local, remote, auth=not key_exchange)
        raise Refused(NotifyType.TS_UNACCEPTABLE, "no rule covers the traffic selectors that the peer asks for")
    for rule in rules:
        # A peer may want transport mode where we grant tunnel mode (RFC 7296 section 1.3.1), not the reverse.
        if rule.mode is Mode.TRANSPORT and not transport:
            continue
        chosen = choose_esp(rule.esp_proposals, payload, key_exchange=key_exchange, wanted_group=group)
        if chosen is None and key_exchange:
            fresh = proposals_for(sa, rule, fresh=True)
            chosen = choose_esp(fresh, payload, key_exchange=True, wanted_group=group)
        if chosen is not None:
            own, other = nat_traversal.as_we_see_them(sa.path, rule.mode, local=local, remote=remote)
            return Agreement(
                rule=rule,
                chosen=chosen,
                local=narrow(own, rule.local),
                remote=narrow(other, rule.remote),
                more_possible=len(rules) > 1,
            )
    context.reasons.child_refused(context.now, sa, rules, payload, auth=not key_exchange)
    raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "no proposal of the peer is acceptable for its Child SA")


def _candidates(
    context: Context,
    sa: IkeSa,
    local: tuple[TrafficSelector, ...],
    remote: tuple[TrafficSelector, ...],
    rule_id: int,
) -> list[NegotiationRule]:
    """The rules that cover any of it; those that cover the first selectors, so perhaps the packet itself, lead."""

    def covers(rule: NegotiationRule, count: int) -> bool:
        own, other = nat_traversal.as_we_see_them(sa.path, rule.mode, local=local[:count], remote=remote[:count])
        return overlap(own, rule.local) and overlap(other, rule.remote)

    rules = [
        rule
        for rule in context.policy.rules_of(sa.peer)
        if rule_id in (0, rule.rule_id) and covers(rule, MAX_SELECTORS)
    ]
    if len(rules) > 1:
        rules.sort(key=lambda rule: not covers(rule, 1))
    return rules


def answer(agreement: Agreement, spi: int) -> list[Payload]:
    """SA, TSi, TSr and perhaps USE_TRANSPORT_MODE of a response."""
    payloads: list[Payload] = [
        esp_answer(agreement.chosen, spi),
        TrafficSelectorsInitiator(selectors=agreement.remote),
        TrafficSelectorsResponder(selectors=agreement.local),
    ]
    if agreement.rule.mode is Mode.TRANSPORT:
        payloads.append(Notify(type=NotifyType.USE_TRANSPORT_MODE))
    if agreement.more_possible:
        payloads.append(Notify(type=NotifyType.ADDITIONAL_TS_POSSIBLE))
    return payloads


# ------------------------------------------------------------------ both


def make_sas(
    sa: IkeSa,
    agreement: Agreement,
    *,
    spi_in: int,
    we_initiate: bool,
    nonce_i: bytes,
    nonce_r: bytes,
    shared: bytes = b"",
    acquire_id: int = 0,
) -> SaPair:
    """Derives the keys of a Child SA and makes both its directions."""
    keys = derive_child_keys(
        agreement.suite,
        prf=sa.keyed.suite.prf,
        sk_d=sa.keyed.keys.sk_d,
        nonce_i=nonce_i,
        nonce_r=nonce_r,
        shared=shared,
    )
    return SaPair(
        inbound=_sa(Direction.IN, sa, agreement, keys, spi_in, we_initiate, acquire_id),
        outbound=_sa(Direction.OUT, sa, agreement, keys, agreement.chosen.spi, we_initiate, acquire_id),
    )


def make_child(context: Context, rule: NegotiationRule, pair: SaPair, state: ChildState, *, ours: bool) -> ChildSa:
    """A Child SA that begins its life now. `ours`: we asked for it."""
    return ChildSa(
        rule_id=rule.rule_id,
        rule_name=rule.name,
        inbound=pair.inbound,
        outbound=pair.outbound,
        state=state,
        ours=ours,
        now=context.now,
        dies_at=context.now + rule.life_s if rule.life_s else math.inf,
    )


def install_asked(
    context: Context, sa: IkeSa, agreement: Agreement, pair: SaPair, *, afresh: bool = False
) -> Work[ChildSa]:
    """Installs a Child SA that the peer has asked for, not in the place of another.

    Both directions at once, unless the same traffic flows on another one already: then, as in a rekey, we send on the
    new one only when the peer is sure to have it. `afresh`: the peer has forgotten what there was before `sa`
    (INITIAL_CONTACT).
    """
    rule_id = agreement.rule.rule_id
    since = sa.created_at if afresh else 0.0
    now = standing(context, sa, rule_id, agreement.local, agreement.remote, since=since)
    flows = now is not None or carries(context, sa, rule_id, agreement.local, agreement.remote, since=since)
    yield from context.install_child(pair.inbound, pair.outbound, both=not flows)
    state = ChildState.INBOUND if flows else ChildState.INSTALLED
    child = make_child(context, agreement.rule, pair, state, ours=False)
    if flows:
        child.beside = now.spi_in if now is not None else 0
        child.due_at = context.now + SWITCH_OUTBOUND_S
    return child


def _sa(
    direction: Direction,
    sa: IkeSa,
    agreement: Agreement,
    keys: ChildKeys,
    spi: int,
    we_initiate: bool,
    acquire_id: int,
) -> Sa:
    return make_sa(
        direction,
        rule=agreement.rule,
        suite=agreement.suite,
        keys=keys,
        we_initiate=we_initiate,
        spi=spi,
        local_end=sa.path.local,
        remote_end=sa.path.remote,
        encapsulated=sa.path.encapsulated,
        local=agreement.local,
        remote=agreement.remote,
        acquire_id=acquire_id,
    )
