"""A policy on its way: BeginPolicy, AddPolicy, ... up to CommitPolicy, gathered and checked. Pure."""

from ipc.messages import AddManualSas, AddPolicy, BeginPolicy, CommitPolicy, KernelRule, Sa
from kernel_agent import guard
from kernel_agent.data_path import SecurityPolicy

MAX_RULES = 1_000_000
MAX_MANUAL_SAS = 16_384


class PolicyBatch:
    """Gathers the rules of one generation. Every check raises guard.Refused."""

    def __init__(self, begin: BeginPolicy) -> None:
        self.begin = begin
        self._rules: list[KernelRule] = []
        self._manual_sas: list[Sa] = []

    def add(self, message: AddPolicy) -> None:
        """Takes some rules."""
        self._check_generation(message.generation)
        if len(self._rules) + len(message.rules) > MAX_RULES:
            raise guard.Refused(f"more than {MAX_RULES} rules")
        for rule in message.rules:
            guard.check_rule(rule)
        self._rules += message.rules

    def add_manual_sas(self, message: AddManualSas) -> None:
        """Takes some SAs with fixed keys; they are checked when all rules are known."""
        self._check_generation(message.generation)
        if len(self._manual_sas) + len(message.sas) > MAX_MANUAL_SAS:
            raise guard.Refused(f"more than {MAX_MANUAL_SAS} SAs with fixed keys")
        self._manual_sas += message.sas

    def commit(self, message: CommitPolicy) -> SecurityPolicy:
        """The whole policy."""
        self._check_generation(message.generation)
        if message.rules != len(self._rules):
            raise guard.Refused(f"{len(self._rules)} rules came of {message.rules}")
        if len({rule.rule_id for rule in self._rules}) != len(self._rules):
            raise guard.Refused("two rules have the same id")
        guard.check_manual_sas(self._manual_sas, {rule.rule_id: rule for rule in self._rules})
        return SecurityPolicy(
            generation=self.begin.generation,
            interfaces=self.begin.interfaces,
            unmatched=self.begin.unmatched,
            rules=tuple(sorted(self._rules, key=lambda rule: rule.position)),
            manual_sas=tuple(self._manual_sas),
        )

    def _check_generation(self, generation: int) -> None:
        if generation != self.begin.generation:
            raise guard.Refused(f"rules of policy {generation} within policy {self.begin.generation}")
