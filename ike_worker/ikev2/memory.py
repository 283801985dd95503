"""What outlives a worker beside its IKE SAs: which rules are left without an SA, and what has failed lately.

An IKE SA's own state is in `snapshot`. This is small, bounded, and holds no key.
"""

from typing import Annotated

from ike_worker.ikev2.context import Context
from ipc import codec
from ipc.types import MaxLength
from ipc.value import value
from ipc.wishes import Failure

MAX_RULES = 200_000
MAX_FAILURES = 1024
MAX_FAILURES_BYTES = 512 * 1024
"""Of all that is kept; the oldest are left out."""

RuleIds = Annotated[tuple[int, ...], MaxLength(MAX_RULES)]


@value
class Memory:
    """See `Upkeep` and `Failures`."""

    cleared: RuleIds
    left: RuleIds
    wanted: RuleIds
    failures: Annotated[tuple[Failure, ...], MaxLength(MAX_FAILURES)]


def take(context: Context) -> Memory:
    """It as a value."""
    failures, size = [], 0
    for failure in context.reasons.failures:
        size += len(codec.encode_value(failure))
        if size > MAX_FAILURES_BYTES:
            break
        failures.append(failure)
    upkeep = context.upkeep
    return Memory(
        cleared=tuple(sorted(upkeep.cleared)),
        left=tuple(sorted(upkeep.left)),
        wanted=tuple(sorted(upkeep.wanted)),
        failures=tuple(failures),
    )


def restore(context: Context, memory: Memory) -> None:
    """Takes it over, before or after the policy comes."""
    context.upkeep.cleared.update(memory.cleared)
    context.upkeep.left.update(memory.left)
    for rule_id in memory.wanted:
        context.upkeep.want(rule_id)
    context.reasons.failures.restore(memory.failures)
    if context.has_policy:
        context.forget_strangers_to_policy()
