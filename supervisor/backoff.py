"""How long a role that died stays dead."""

LONGEST_DELAY_S = 60.0
FORGIVEN_AFTER_S = 60.0
"""A role that ran this long starts with a clean record."""


class Backoff:
    """At once the first time, then after 1, 2, 4 ... 60 seconds."""

    def __init__(self) -> None:
        self.deaths = 0
        """Since the record was clean."""

    def next_delay_s(self, ran_s: float) -> float:
        """How long to wait before the next start of a role that has just died after `ran_s` seconds."""
        if ran_s >= FORGIVEN_AFTER_S:
            self.deaths = 0
        delay_s = min(LONGEST_DELAY_S, 2.0 ** (self.deaths - 1)) if self.deaths else 0.0
        self.deaths = min(self.deaths + 1, 16)
        return delay_s
