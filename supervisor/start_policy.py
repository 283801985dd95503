"""Which policy a start takes: the policy file; where that is no good its backup, then the last that was in force.

A file that does not exist is not replaced by anything: the instance is not configured then.
"""

from collections.abc import Callable

from ipc.value import value
from supervisor.errors import FileMissing, FileRefused
from supervisor.files import FileContent, read_policy
from supervisor.generations import Generations
from supervisor.policy import first_line


@value
class Candidate:
    """A policy to try, and why it is not the policy file; empty if it is."""

    file: FileContent
    backup_reason: str


class StartPolicies:
    """The policies of one start, each tried when the one before was refused."""

    def __init__(self, generations: Generations, *, only_backup: bool) -> None:
        self.errors: tuple[str, ...] = ()
        """What is wrong with the policy file, and what else was tried."""
        self._generations = generations
        self._only_backup = only_backup
        self._others: list[Callable[[], FileContent | None]] = []

    def first(self) -> Candidate:
        """The one to begin with; FileMissing or FileRefused if there is none."""
        generations = self._generations
        if self._only_backup:
            return Candidate(file=read_policy(generations.backup_path), backup_reason="the option -b asks for it")
        self._others = [lambda: read_policy(generations.backup_path), generations.newest]
        try:
            file = read_policy(generations.spd_path)
        except FileMissing:
            raise
        except FileRefused as error:
            other = self.after_refusal((str(error),))
            if other is None:
                raise
            return other
        former = generations.newest() if generations.is_unconfirmed(file) else None
        if former is None:
            return Candidate(file=file, backup_reason="")
        reason = f"{generations.spd_path} was to be confirmed and was not; `ipsecctl reload` takes it"
        return Candidate(file=former, backup_reason=reason)

    def after_refusal(self, errors: tuple[str, ...]) -> Candidate | None:
        """The next one, when the last one had these errors; None if there is none left."""
        self.errors += errors
        while self._others:
            try:
                file = self._others.pop(0)()
            except FileMissing:
                continue
            except FileRefused as error:
                self.errors += (str(error),)
                continue
            if file is not None:
                reason = f"{self._generations.spd_path} was refused: {first_line(self.errors)}"
                return Candidate(file=file, backup_reason=reason)
        return None
