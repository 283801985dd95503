"""Child SAs that are wanted: which worker and which IKE SA negotiate them, and what follows when they end.

RFC 7296 leaves both to the policy (sections 1.4.1 and 2.4).
"""

from collections.abc import Collection
from dataclasses import replace

from ike_worker.ikev2.child_negotiation import is_served
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.exchanges import ike_sa_init
from ike_worker.ikev2.features import elsewhere
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import State
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.messages import EndedRule, NegotiationRule
from ipc.types import StartAction


def negotiate(context: Context, wish: Wish) -> None:
    """Has a Child SA made, on an IKE SA that stands or on a new one; nothing if that is under way or not needed."""
    rule = context.policy.rule(wish.rule_id)
    peer = context.policy.peer(rule.peer) if rule is not None else None
    if peer is None or context.closing:
        return
    usable = [sa for sa in context.with_peer(peer.name) if _is_usable(sa)]
    if any(_negotiates(sa, wish.rule_id) or is_served(sa, wish) for sa in usable):
        return
    if elsewhere.serves(context, peer.name, wish):
        return
    if usable:
        best = max(usable, key=_usefulness)
        best.wishes.append(wish)
        context.wake(best)
    elif peer.address is not None:
        context.wake(ike_sa_init.begin(context, peer, peer.address, wish))


def follow_ends(context: Context) -> None:
    """What the policy wants done where a peer has closed an SA, or is silent."""
    ended, context.ended = context.ended, {}
    again, context.again = context.again, []
    for wish in again:
        negotiate(context, replace(wish, attempts=wish.attempts + 1, not_before=0.0))
    for rule_id, action in ended.items():
        wish = Wish(kind=WishKind.CREATE_CHILD, rule_id=rule_id)
        rule = context.policy.rule(rule_id)
        if rule is None or any(is_served(sa, wish) for sa in context.with_peer(rule.peer) if _is_usable(sa)):
            continue
        if elsewhere.serves(context, rule.peer, wish):
            continue
        if context.upkeep.end(rule_id, action):
            context.upkeep.want(rule_id)
            negotiate(context, wish)
        elif context.place.workers > 1:
            context.elsewhere.ended.append(EndedRule(rule_id=rule_id, action=action))


def at_start(context: Context) -> set[int]:
    """The rules that are to be up from the start."""
    rules = (context.policy.rule(rule_id) for rule_id in context.policy.rule_ids)
    return {rule.rule_id for rule in rules if rule is not None and rule.start is StartAction.AT_START}


def to_begin(context: Context, new: Collection[int]) -> list[int]:
    """The rules to be negotiated now: of the `new` ones those that nobody has ended, and what was being tried already.

    Not those that have a Child SA, and not those that another worker sees to.
    """
    up = {child.rule_id for sa in context.ike_sas.values() for child in sa.children.values()}
    found = []
    for rule_id in sorted((set(new) - context.upkeep.left | context.upkeep.wanted) - up):
        rule = context.policy.rule(rule_id)
        if rule is not None and is_for_us(context, rule.peer, _wish_for(rule)):
            found.append(rule_id)
    return found


def is_for_us(context: Context, peer: str, wish: Wish) -> bool:
    """Whether no other worker is to see to it, or has."""
    return elsewhere.is_ours(context, peer) and not elsewhere.serves(context, peer, wish)


def _wish_for(rule: NegotiationRule) -> Wish:
    return Wish(kind=WishKind.CREATE_CHILD, rule_id=rule.rule_id)


def _is_usable(sa: IkeSa) -> bool:
    """Whether it is worth while to want something of `sa`."""
    alive = (State.ESTABLISHED, State.CONNECTING, State.AUTHENTICATING)
    return sa.state in alive and not sa.wants(WishKind.DELETE_IKE)


def _usefulness(sa: IkeSa) -> tuple[bool, bool, float]:
    """The best one of several."""
    return sa.state is State.ESTABLISHED, sa.handover is None, sa.established_at


def _negotiates(sa: IkeSa, rule_id: int) -> bool:
    """Whether a Child SA of this rule is under way on `sa`."""
    return any(creates(wish, rule_id) for wish in sa.all_wishes)


def creates(wish: Wish, rule_id: int) -> bool:
    """Whether it is for a new Child SA of this rule."""
    return wish.kind is WishKind.CREATE_CHILD and wish.rule_id == rule_id
