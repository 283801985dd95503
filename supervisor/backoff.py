"""How long a role that died stays dead."""

LONGEST_DELAY_S = 60.0
FORGIVEN_AFTER_S = 60.0
"""A role that ran this long starts with a clean record."""
FAILED_DEATHS = 5
FAILED_WITHIN_S = 60.0
"""So many deaths in so short a time, and a role is reported failed. It is tried again all the same."""


class Backoff:
    """At once the first time, then after 1, 2, 4 ... 60 seconds."""

    def __init__(self) -> None:
        self.deaths = 0
        """Since the record was clean."""
        self.failed = False
        """It died FAILED_DEATHS times within FAILED_WITHIN_S, and has not run for FORGIVEN_AFTER_S since."""
        self._between: list[float] = []
        """Seconds between the last deaths."""
        self._delay_s = 0.0

    def next_delay_s(self, ran_s: float) -> float:
        """How long to wait before the next start of a role that has just died after `ran_s` seconds."""
        if ran_s >= FORGIVEN_AFTER_S:
            self.forgive()
        elif self.deaths:
            self._between = [*self._between[2 - FAILED_DEATHS :], self._delay_s + ran_s]
        self._delay_s = min(LONGEST_DELAY_S, 2.0 ** (self.deaths - 1)) if self.deaths else 0.0
        self.deaths = min(self.deaths + 1, 16)
        if len(self._between) == FAILED_DEATHS - 1 and sum(self._between) <= FAILED_WITHIN_S:
            self.failed = True
        return self._delay_s

    def forgive(self) -> None:
        """The record is clean again."""
        self.deaths = 0
        self.failed = False
        self._between = []
