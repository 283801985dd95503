"""Changes of the policy of a running instance: reload, plan, confirm, roll back. All or nothing, one at a time.

A policy that was to be confirmed goes back by itself. That must not be lost with this process: before such a policy is
offered, it is marked on the disk, and a start takes the newest generation instead of a file that is marked.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ipc import messages as m
from ipc.loop import Loop, Timer
from ipc.patience import for_policy
from ipc.value import value
from supervisor import notify
from supervisor.cuts import plan_of
from supervisor.errors import FileRefused
from supervisor.files import FileContent, Replacement, read_policy
from supervisor.generations import Generations
from supervisor.policy import Finished, PolicyKeeper
from supervisor.tunnels import Tunnels

log = logging.getLogger(__name__)

RELOAD_WITHIN_S = 120.0
GO_BACK_AGAIN_S = 2.0
"""After so long it is tried again to go back to the policy before."""
LONGEST_CONFIRM_S = 86400.0

Told = Callable[[m.CommandDone], None]
"""Called once with the end of a command."""


@value
class Surroundings:
    """What a reload asks of the rest of the instance."""

    loop: Loop
    tunnels: Tunnels
    why_not: Callable[[], str]
    """Why there can be no reload now; empty if there can."""
    adapt: Callable[[], tuple[str, ...]]
    """Has the host follow the policy that came into force; what there is to say of that."""


@dataclass(slots=True, kw_only=True)
class _Pending:
    """The policy in force waits for confirmation."""

    until: float
    """Monotonic."""
    after_s: float
    timer: Timer
    replacements: tuple[Replacement, ...]
    """What becomes the policy file when it is confirmed."""


class Reloads:
    """The way from one policy to another."""

    def __init__(self, policy: PolicyKeeper, generations: Generations, surroundings: Surroundings) -> None:
        self.generations = generations
        self._policy = policy
        self._surroundings = surroundings
        self._pending: _Pending | None = None

    # ------------------------------------------------------------- what can be asked

    def confirm_within_s(self) -> float:
        """The seconds left to confirm the policy in force; 0 if nothing waits for that."""
        return max(0.1, self._pending.until - time.monotonic()) if self._pending is not None else 0.0

    def reload(self, finished: Finished, confirm_s: float = 0.0) -> None:
        """Has the policy file enforced; what runs goes on if it can't be. With `confirm_s` it is to be confirmed."""
        refusal = self._refusal(confirm_s)
        if refusal:
            _log_lines(False, (refusal,))
            finished(False, (refusal,))
            return
        try:
            file = read_policy(self.generations.spd_path)
        except FileRefused as error:
            self._policy.refused = (str(error),)
            self._end(finished, False, (str(error),))
            return
        self._change(file, finished, confirm_s, ())

    def roll_back(self, number: int, finished: Finished, confirm_s: float = 0.0) -> None:
        """Has a generation that was kept enforced, and makes it the policy file."""
        refusal = self._refusal(confirm_s)
        if refusal:
            finished(False, (refusal,))
            return
        try:
            file = self.generations.numbered(number)
            replacements = self.generations.prepare_to_put_back(file)
        except (FileRefused, OSError) as error:
            finished(False, (str(error), "nothing was changed"))
            return
        self._change(file, finished, confirm_s, replacements)

    def plan(self, told: Told) -> None:
        """Says what a reload would do; nothing is enforced."""
        try:
            file = read_policy(self.generations.spd_path)
        except FileRefused as error:
            told(m.CommandDone(exit_code=1, lines=(str(error),)))
            return

        def planned(parsed: m.PolicyParsed | None, lines: tuple[str, ...]) -> None:
            if parsed is None:
                told(m.CommandDone(exit_code=1, lines=(*lines[:999], "a reload would be refused")))
                return
            plan = plan_of(parsed.changes, self._surroundings.tunnels.all())
            told(m.CommandDone(exit_code=0, lines=lines, plan=plan))

        self._policy.plan(file, planned)
        self._expire_offer()

    def confirm(self) -> m.CommandDone:
        """The policy in force stays."""
        pending = self._pending
        if pending is None:
            return m.CommandDone(exit_code=1, lines=("no policy waits for confirmation",))
        if self._policy.goes_back:
            return m.CommandDone(exit_code=1, lines=("too late: the policy before is on its way back",))
        former = self._policy.former
        self._end_pending()
        lines = self._settle(former.file if former is not None else None, pending.replacements)
        log.info("the policy was confirmed")
        # What had to wait for it, such as that secure mode is remembered.
        lines += self._surroundings.adapt()
        return m.CommandDone(exit_code=0, lines=("the policy in force is confirmed", *lines))

    def started(self) -> None:
        """The first policy is in force."""
        policy = self._policy.in_force
        if policy is None:
            return
        try:
            before = self.generations.newest()
        except FileRefused as error:
            log.warning("the generation before can't be read: %s", error)
            before = None
        # A policy that was taken instead of the file is no change of the file.
        self.generations.came_into_force(policy.file, None if policy.backup_reason else before)

    def close(self) -> None:
        """What waits for confirmation does not come any more; a start takes the policy before."""
        if self._pending is not None:
            _discard(self._pending.replacements)

    # ------------------------------------------------------------- how it goes

    def _refusal(self, confirm_s: float) -> str:
        if self._pending is not None:
            left_s = self.confirm_within_s()
            return (
                f"a policy waits for confirmation, for another {left_s:.0f} s: "
                "`ipsecctl confirm` keeps it, after that time the one before is in force again"
            )
        if confirm_s > LONGEST_CONFIRM_S:
            return f"at most {LONGEST_CONFIRM_S:.0f} s may be had to confirm a policy"
        return self._surroundings.why_not()

    def _change(
        self, file: FileContent, finished: Finished, confirm_s: float, replacements: tuple[Replacement, ...]
    ) -> None:
        before = self._policy.in_force
        marked, refused = self.generations.is_unconfirmed(file), self._policy.refused
        if confirm_s and before is not None:
            try:
                self.generations.mark_unconfirmed(file, before.file)
            except (OSError, FileRefused) as error:
                _discard(replacements)
                finished(False, (f"what to go back to can't be kept: {error}", "nothing was changed"))
                return

        def ended(in_force: bool, lines: tuple[str, ...]) -> None:
            if not in_force:
                if replacements:
                    # It was not the policy file that was refused.
                    self._policy.refused = refused
                _discard(replacements)
                lines += self._clear_mark() if confirm_s and not marked else ()
            elif confirm_s:
                self._policy.former = before
                self._wait_for_confirmation(confirm_s, replacements)
                lines += (f"it goes back in {confirm_s:g} s: `ipsecctl confirm` keeps it",)
            else:
                lines += self._settle(before.file if before is not None else None, replacements)
            self._end(finished, in_force, lines)

        if self._policy.offered is None:
            notify.reloading()
        self._policy.offer(file, ended)
        self._expire_offer()

    def _expire_offer(self) -> None:
        """Ends the present offer if it takes too long."""
        if self._policy.offered is not None:
            generation = self._policy.offered.generation
            within_s = for_policy(RELOAD_WITHIN_S, size_bytes=len(self._policy.offered.file.content))
            self._surroundings.loop.call_later(within_s, lambda: self._policy.expire(generation))

    def _settle(self, before: FileContent | None, replacements: tuple[Replacement, ...]) -> tuple[str, ...]:
        """The policy in force stays: it is kept, and so is what was in force before."""
        policy = self._policy.in_force
        if policy is None:
            return ()
        lines: tuple[str, ...] = ()
        try:
            if replacements and before is not None:
                lines += (self.generations.rescue_edited(before),)
            for replacement in replacements:
                replacement.commit()
            if replacements:
                self._policy.is_now_at(self.generations.spd_path)
                lines += (self.generations.put_templates_away(policy.file),)
        except OSError as error:
            _discard(replacements)
            lines += (f"warning: {self.generations.spd_path} can't be replaced: {error}",)
        self.generations.came_into_force(policy.file, before)
        lines += self._clear_mark()
        lines += (f"warning: {self.generations.problem}",) if self.generations.problem else ()
        return tuple(line for line in lines if line)

    def _clear_mark(self) -> tuple[str, ...]:
        try:
            self.generations.clear_mark()
        except OSError as error:
            return (f"warning: the mark of a policy that is not confirmed can't be removed: {error}",)
        return ()

    # ------------------------------------------------------------- confirmation

    def _wait_for_confirmation(self, confirm_s: float, replacements: tuple[Replacement, ...]) -> None:
        timer = self._surroundings.loop.call_later(confirm_s, self._go_back)
        until = time.monotonic() + confirm_s
        self._pending = _Pending(until=until, after_s=confirm_s, timer=timer, replacements=replacements)

    def _end_pending(self) -> None:
        if self._pending is not None:
            self._pending.timer.cancel()
        self._pending = None
        self._policy.former = None

    def _go_back(self) -> None:
        """Nobody confirmed. The mark stays: a start must not take the file either."""
        pending = self._pending
        if pending is None:
            return
        reason = f"it was not confirmed within {pending.after_s:g} s"
        log.warning("the policy was not confirmed within %g s: the one before comes back", pending.after_s)

        def ended(in_force: bool, lines: tuple[str, ...]) -> None:
            if not in_force:
                log.error("the policy before can't come back yet: %s", "; ".join(lines))
                pending.timer = self._surroundings.loop.call_later(GO_BACK_AGAIN_S, self._go_back)
                return
            self._end_pending()
            _discard(pending.replacements)
            # After a rollback that was not confirmed, the policy file is what runs again.
            self._policy.refused = () if pending.replacements else (reason,)
            for line in self._surroundings.adapt():
                log.info("%s", line)

        self._policy.go_back(ended)
        self._expire_offer()

    def _end(self, finished: Finished, in_force: bool, lines: tuple[str, ...]) -> None:
        policy = self._policy.in_force
        if in_force and policy is not None and policy.parsed is not None:
            lines = (self._in_words(policy.parsed.rules), *lines, *self._surroundings.adapt())
        else:
            lines = (*lines, "the new policy is not in force; what ran before goes on")
        _log_lines(in_force, lines)
        if self._policy.offered is None:
            notify.ready()
        finished(in_force, lines)

    def _in_words(self, rules: int) -> str:
        """What is in force, by the number that `ipsecctl policy` knows it by, if it is kept."""
        number = self.generations.number if self._pending is None else 0
        name = f"policy generation {number}" if number else "the new policy"
        return f"{name} is in force: {rules} {'rule' if rules == 1 else 'rules'}"


def _discard(replacements: tuple[Replacement, ...]) -> None:
    for replacement in replacements:
        replacement.discard()


def _log_lines(good: bool, lines: tuple[str, ...]) -> None:
    for line in lines:
        log.log(logging.INFO if good else logging.ERROR, "reload: %s", line)
