"""A Child SA without traffic is deleted, if the policy says so (NegotiationRule.idle_s). The kernel is asked, seldom.

A rekey counts as traffic: the new SAs begin with counters of their own.
"""

from ike_worker.ikev2.child_sa import ChildSa, sa_name
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.events import QueryUsage
from ipc.messages import Usage

ASK_AGAIN_S = 10.0
"""Where no answer comes: the agent may just be starting."""


def ask(context: Context, child: ChildSa) -> None:
    """It may have been idle for long enough."""
    child.idle_at = context.now + ASK_AGAIN_S
    context.events.append(QueryUsage(sas=tuple(sa_name(sa) for sa in child.installed)))


def is_idle(context: Context, child: ChildSa, usage: dict[int, Usage]) -> bool:
    """What the kernel says of its SAs, by SPI; if it is not idle, the time of the next question is set."""
    rule = context.policy.rule(child.rule_id)
    idle_s = min((usage[sa.spi].idle_s for sa in child.installed if sa.spi in usage), default=0.0)
    if rule is None or not rule.idle_s:
        child.idle_at = float("inf")
        return False
    child.idle_at = context.now + max(rule.idle_s - idle_s, 1.0)
    return idle_s >= rule.idle_s
