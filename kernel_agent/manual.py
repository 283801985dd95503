"""SAs with fixed keys: what a new policy changes about them, in an order that can be taken back.

They come with the policy, and go with it or with their rule; the worker has no say in them. One that does not change is
not touched: its key, its place and its counters stay.
"""

import logging
from collections.abc import Mapping

from ipc.messages import Sa, SaName
from ipc.value import value
from kernel_agent.data_path import DataPath, DataPathError

log = logging.getLogger(__name__)


@value
class ManualChange:
    """What to do: `replaced` are SAs of which another of the same name is installed."""

    added: tuple[Sa, ...]
    replaced: tuple[Sa, ...]

    @property
    def all(self) -> tuple[Sa, ...]:
        """All that must be written."""
        return self.added + self.replaced


class ManualSas:
    """The SAs with fixed keys that are installed, by name.

    `known` holds those that this process installed; of the others, which an agent before it did, only name and rule are
    known. A rule whose keys change gets another id, so that is enough.
    """

    def __init__(self) -> None:
        self.known: dict[SaName, Sa] = {}

    def change(self, wanted: tuple[Sa, ...], installed: Mapping[SaName, int]) -> ManualChange:
        """What leads to `wanted`; `installed` has the rule of every SA there is."""
        added, replaced = [], []
        for sa in wanted:
            name = name_of(sa)
            if name not in installed:
                added.append(sa)
            elif installed[name] != sa.rule_id or self.known.get(name, sa) != sa:
                replaced.append(sa)
        return ManualChange(added=tuple(added), replaced=tuple(replaced))

    def apply(self, change: ManualChange, data_path: DataPath) -> None:
        """Installs what is new; DataPathError, and nothing has changed."""
        if change.replaced:
            data_path.delete_sas(tuple(name_of(sa) for sa in change.replaced), _log_failure)
        reason = _add(data_path, change.all) if change.all else ""
        if reason:
            self._put_back(change, data_path)
            raise DataPathError(f"SAs with fixed keys are refused: {reason}")

    def undo(self, change: ManualChange, data_path: DataPath) -> None:
        """As it was before `apply`."""
        if change.all:
            data_path.delete_sas(tuple(name_of(sa) for sa in change.all), _log_failure)
            self._put_back(change, data_path)

    def _put_back(self, change: ManualChange, data_path: DataPath) -> None:
        former = tuple(self.known[name_of(sa)] for sa in change.replaced if name_of(sa) in self.known)
        if former:
            _log_failure(_add(data_path, former))


def name_of(sa: Sa) -> SaName:
    """What names it in messages."""
    return SaName(spi=sa.spi, destination=sa.destination)


class _Outcome:
    """The answer of a data path, which comes at once from the kernel, and later from a process."""

    def __init__(self) -> None:
        self.reason = ""
        self.is_late = False

    def __call__(self, reason: str) -> None:
        if self.is_late:
            _log_failure(reason)
        self.reason = reason


def _add(data_path: DataPath, sas: tuple[Sa, ...]) -> str:
    outcome = _Outcome()
    data_path.add_sas(sas, outcome)
    outcome.is_late = True
    return outcome.reason


def _log_failure(reason: str) -> None:
    if reason:
        log.error("an SA with fixed keys: %s", reason)
