"""What the kernel says of the traffic of Child SAs. It is asked seldom, and RFC 7296 asks for none of it.

A Child SA without traffic is deleted, if the policy says so (NegotiationRule.idle_s); what takes its place by a rekey
goes on counting. And one that the peer made by a rekey is sent on from its first packet on: the peer has it then, and
need not have deleted the old one yet.
"""

import logging
import math

from ike_worker.ikev2.child_sa import ChildSa, sa_name
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.events import QueryUsage
from ike_worker.ikev2.exchanges import informational
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState
from ike_worker.ikev2.wish import WishKind
from ipc.messages import Usage

log = logging.getLogger(__name__)

ASK_AGAIN_S = 10.0
"""Where no answer comes: the agent may just be starting."""

UsageBySpi = dict[int, Usage]


def ask(context: Context, child: ChildSa) -> None:
    """It may have been idle for long enough, or carry its first packets."""
    context.ask_for_traffic_later(child)
    if child.state is ChildState.INSTALLED:
        child.ask_at = context.now + ASK_AGAIN_S
    elif not child.follows_another:
        return
    context.events.append(QueryUsage(sas=tuple(sa_name(sa) for sa in child.installed)))


def look(context: Context, sa: IkeSa, child: ChildSa, usage: UsageBySpi) -> bool:
    """Looks at what the kernel says of `child`; True if that is idle and is to be deleted."""
    if child.state is ChildState.INSTALLED:
        return _is_idle(context, child, usage)
    if child.state is ChildState.INBOUND:
        _follow_first_packet(context, sa, child, usage)
    else:
        _hand_on(context, sa, child, usage)
    return False


def _idle_s(child: ChildSa, usage: UsageBySpi) -> float:
    """How long it has been idle, and before it what it replaces; 0 if that is not known."""
    told = [usage[sa.spi] for sa in (child.inbound, child.outbound) if sa.spi in usage]
    idle_s = min((one.idle_s for one in told), default=0.0)
    return idle_s if any(one.packets for one in told) else idle_s + child.idle_before_s


def _is_idle(context: Context, child: ChildSa, usage: UsageBySpi) -> bool:
    rule = context.policy.rule(child.rule_id)
    if rule is None or not rule.idle_s:
        child.ask_at = math.inf
        return False
    idle_s = _idle_s(child, usage)
    child.ask_at = context.now + max(rule.idle_s - idle_s, 1.0)
    return idle_s >= rule.idle_s


def _follow_first_packet(context: Context, sa: IkeSa, child: ChildSa, usage: UsageBySpi) -> None:
    inbound = usage.get(child.spi_in)
    if inbound is None or not inbound.packets or not child.follows_another:
        return
    pending = sa.window.pending
    if pending is not None and pending.wish.kind is WishKind.REKEY_CHILD and pending.collided_spi_in == child.spi_in:
        return  # our own rekey of the same one is not answered yet: its nonces say which of the two stays
    log.debug("%s: %s: the peer sends on it", sa, child)
    context.start(sa, informational.switch_outbound(context, child), lambda _: None, lambda _: None)


def _hand_on(context: Context, sa: IkeSa, old: ChildSa, usage: UsageBySpi) -> None:
    """`old` has been replaced: its idle time is that of its successor."""
    for owner in (sa, *context.siblings(sa)):
        for child in owner.children.values():
            rule = context.policy.rule(child.rule_id)
            if old.spi_in in (child.replaces, child.beside) and rule is not None and rule.idle_s:
                child.idle_before_s = _idle_s(old, usage)
                context.mark_changed(owner)
                context.ask_for_traffic_later(child)
                context.wake(owner)
