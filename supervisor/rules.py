"""What the worker has told of the protect rules, kept for status."""

from collections.abc import Collection

from ipc import messages as m
from ipc.roles import Role
from ipc.status import DownRule
from ipc.types import StartAction

MAX_RULES = 1 << 20
"""As many as there are rule ids; the worker that tells of them may have been broken into."""

NOTHING_TRIED = {
    StartAction.ON_DEMAND: "no packet has wanted it yet",
    StartAction.AT_START: "its negotiation has not ended yet",
    StartAction.RESPOND_ONLY: "the peer has not asked for it yet",
}


class Rules:
    """The protect rules as last told, by worker and name."""

    def __init__(self) -> None:
        self._of_worker: dict[str, dict[str, m.RuleState]] = {}

    def change(self, message: m.RulesChanged, worker: str = Role.IKE_WORKER) -> None:
        """Takes over what changed."""
        by_name = self._of_worker.setdefault(worker, {})
        if message.fresh:
            by_name.clear()
        for rule in message.rules:
            if rule.name in by_name or len(by_name) < MAX_RULES:
                by_name[rule.name] = rule

    def down(self, up: Collection[str]) -> tuple[DownRule, ...]:
        """The rules that are not among those `up`, in the order of the policy.

        Each worker knows all rules; of one that it does not negotiate it has nothing to tell.
        """
        told: dict[str, m.RuleState] = {}
        for by_name in self._of_worker.values():
            told.update({rule.name: rule for rule in by_name.values() if rule.reason or rule.name not in told})
        return tuple(
            DownRule(
                rule=rule.name,
                peer=rule.peer,
                start=rule.start.name.lower().replace("_", "-"),
                reason=rule.reason or NOTHING_TRIED[rule.start],
            )
            for rule in told.values()
            if rule.name not in up
        )
