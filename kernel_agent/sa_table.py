"""What the agent knows of the SAs that there are, and of the SPIs that it gave out."""

import itertools
from collections import Counter
from collections.abc import Callable

from ipc.messages import SaName
from kernel_agent.guard import FIRST_SPI

MAX_ALLOCATED_SPIS = 65536


class SaTable:
    """Which SAs there are, and which SPIs were given out."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self.rules: dict[SaName, int] = {}
        """The rule of each SA."""
        self.owners: dict[SaName, bytes] = {}
        """The worker of each SA; of one that an agent before us has installed, none until its worker names it."""
        self.per_rule: dict[int, int] = {}
        self._spis: Counter[int] = Counter()
        """How many SAs have each SPI."""
        self.allocated: dict[int, None] = {}
        """Oldest first: SPIs that are never used make way."""

    def add(self, name: SaName, rule_id: int, owner: bytes = b"") -> None:
        """An SA exists, or is about to."""
        if owner:
            self.owners[name] = owner
        if name not in self.rules:
            self.rules[name] = rule_id
            self.per_rule[rule_id] = self.per_rule.get(rule_id, 0) + 1
            self._spis[name.spi] += 1
        self.allocated.pop(name.spi, None)

    def remove(self, name: SaName) -> None:
        """It does not."""
        rule_id = self.rules.pop(name, None)
        self.owners.pop(name, None)
        if rule_id is not None:
            self.per_rule[rule_id] -= 1
            if not self.per_rule[rule_id]:
                del self.per_rule[rule_id]
            self._spis[name.spi] -= 1
            if not self._spis[name.spi]:
                del self._spis[name.spi]

    def allocate(self, count: int) -> tuple[int, ...]:
        """Random SPIs that no SA has and nobody else was given: a secret that only the peer learns."""
        spis: list[int] = []
        while len(spis) < count:
            spi = int.from_bytes(self._random_bytes(4), "big")
            if spi >= FIRST_SPI and spi not in self._spis and spi not in self.allocated:
                self.allocated[spi] = None
                spis.append(spi)
        for oldest in list(itertools.islice(self.allocated, max(0, len(self.allocated) - MAX_ALLOCATED_SPIS))):
            del self.allocated[oldest]
        return tuple(spis)
