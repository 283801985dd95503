"""What the worker has told of the protect rules, kept for status."""

from collections.abc import Collection

from ipc import messages as m
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
    """The protect rules as last told, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, m.RuleState] = {}

    def change(self, message: m.RulesChanged) -> None:
        """Takes over what changed."""
        if message.fresh:
            self._by_name.clear()
        for rule in message.rules:
            if rule.name in self._by_name or len(self._by_name) < MAX_RULES:
                self._by_name[rule.name] = rule

    def down(self, up: Collection[str]) -> tuple[DownRule, ...]:
        """The rules that are not among those `up`, in the order of the policy."""
        return tuple(
            DownRule(
                rule=rule.name,
                peer=rule.peer,
                start=rule.start.name.lower().replace("_", "-"),
                reason=rule.reason or NOTHING_TRIED[rule.start],
            )
            for rule in self._by_name.values()
            if rule.name not in up
        )
