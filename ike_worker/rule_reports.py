"""What the supervisor is told of the protect rules, so that status can say why one of them has no SA."""

from collections.abc import Iterator

from ipc import messages as m

REASON_CHARACTERS = 256


class RuleReports:
    """The state of each protect rule by name, and which of them the supervisor has not been told of yet."""

    def __init__(self) -> None:
        self._states: dict[str, m.RuleState] = {}
        self._of_peer: dict[str, list[str]] = {}
        self._peer_reasons: dict[str, str] = {}
        self._changed: dict[str, None] = {}
        self._fresh = False

    def set_policy(self, rules: tuple[m.NegotiationRule, ...]) -> None:
        """There is a new policy; a rule that was in the old one too keeps its reason."""
        old, self._states, self._of_peer = self._states, {}, {}
        self._peer_reasons.clear()
        for rule in rules:
            before = old.get(rule.name)
            reason = before.reason if before is not None and before.peer == rule.peer else ""
            self._states[rule.name] = m.RuleState(name=rule.name, peer=rule.peer, start=rule.start, reason=reason)
            self._of_peer.setdefault(rule.peer, []).append(rule.name)
        self._changed = dict.fromkeys(self._states)
        self._fresh = True

    def failed(self, peer: str, rule: str, reason: str) -> None:
        """No SA came of an attempt; without `rule` it was the peer's own, and says something of all its rules."""
        if rule:
            self._set(rule, reason)
        elif self._peer_reasons.get(peer) != reason:
            # A stranger can have this happen as often as it likes: only what is new is told.
            self._peer_reasons[peer] = reason
            for name in self._of_peer.get(peer, ()):
                self._set(name, reason)

    def established(self, rule: str) -> None:
        """There is an SA."""
        state = self._states.get(rule)
        if state is not None:
            self._peer_reasons.pop(state.peer, None)
            self._set(rule, "")

    def closed(self, rule: str, reason: str) -> None:
        """An SA is no more."""
        self._set(rule, reason)

    def take(self) -> Iterator[m.RulesChanged]:
        """What there is to tell, in messages of bounded size."""
        changed, fresh = [self._states[name] for name in self._changed], self._fresh
        self._changed, self._fresh = {}, False
        size = m.RULES_PER_MESSAGE
        for start in range(0, max(len(changed), fresh), size):
            yield m.RulesChanged(fresh=fresh and start == 0, rules=tuple(changed[start : start + size]))

    def _set(self, rule: str, reason: str) -> None:
        state = self._states.get(rule)
        reason = reason[:REASON_CHARACTERS]
        if state is not None and state.reason != reason:
            self._states[rule] = m.RuleState(name=rule, peer=state.peer, start=state.start, reason=reason)
            self._changed[rule] = None
