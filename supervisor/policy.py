"""Which policy is in force, and the way of a new one: offered, parsed by the loader, enforced by the agent.

The supervisor never reads what stands in an SPD file. It keeps the content of the one in force, so that a loader that
was started again gets just that, whatever has become of the file.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Callable

from ipc import messages as m
from ipc.value import value
from supervisor.files import FileContent

log = logging.getLogger(__name__)

BUSY = "another policy is being loaded; try again when it has ended"

Send = Callable[[object], bool]
Finished = Callable[[bool, tuple[str, ...]], None]
"""Called once with whether the offered policy is in force now, and what there is to say."""
Planned = Callable[[m.PolicyParsed | None, tuple[str, ...]], None]
"""Called once with what a policy would be, or None and why it can't come into force."""


def first_line(errors: tuple[str, ...]) -> str:
    """The first of several errors, without the excerpt of the file below it."""
    return errors[0].partition("\n")[0] if errors else ""


@value
class Policy:
    """A policy file on its way or in force."""

    generation: int
    file: FileContent
    parsed: m.PolicyParsed | None = None
    enforced_at: float = 0.0
    """Monotonic."""
    backup_reason: str = ""
    """Why this one was taken and not the policy file; empty if it is the policy file."""


class PolicyKeeper:
    """The policy in force and the one that is offered. `send` speaks to the loader, and says whether it could.

    `may_enforce` tells whether the agent has a data path: before, a parsed policy waits for `enforce`.
    """

    def __init__(self, send: Send, may_enforce: Callable[[], bool]) -> None:
        self.in_force: Policy | None = None
        self.offered: Policy | None = None
        self.former: Policy | None = None
        """To go back to, while the one in force waits for confirmation."""
        self.refused: tuple[str, ...] = ()
        """Why the last file offered is not in force; empty if it is."""
        self.loader_lacks_policy = False
        """A loader that was started again could not take the policy in force."""
        self._send = send
        self._may_enforce = may_enforce
        self._finished: Finished | None = None
        self._planned: Planned | None = None
        """Who waits for a plan, if the policy on offer is not to be enforced."""
        self._loader_up = False
        self._generation = 0

    def offer(self, file: FileContent, finished: Finished, backup_reason: str = "") -> None:
        """Has `file` parsed and then enforced; `finished` is called in the end. One at a time."""
        if self.offered is not None:
            finished(False, (BUSY,))
            return
        self._finished = finished
        self._begin(self._next(file, backup_reason))

    def go_back(self, finished: Finished) -> None:
        """Offers `former` again, as the generation that it was; `finished` as for `offer`."""
        if self.offered is not None or self.former is None:
            finished(False, (BUSY,))
            return
        self._finished = finished
        self._begin(self.former)

    def plan(self, file: FileContent, planned: Planned) -> None:
        """As `offer`, but nothing is enforced: `planned` hears what would be."""
        if self.offered is not None:
            planned(None, (BUSY,))
            return
        self._planned = planned
        self._begin(self._next(file, ""))

    @property
    def oldest_generation(self) -> int:
        """The oldest that may still have to be parsed again; 0 before there is one."""
        return min((policy.generation for policy in (self.former, self.in_force) if policy is not None), default=0)

    @property
    def size_bytes(self) -> int:
        """Of the largest policy file that the roles may have to do with."""
        policies = (policy for policy in (self.offered, self.former, self.in_force) if policy is not None)
        return max((len(policy.file.content) for policy in policies), default=0)

    @property
    def goes_back(self) -> bool:
        """Whether `former` is being put in force again."""
        offered, former = self.offered, self.former
        return offered is not None and former is not None and offered.generation == former.generation

    def _next(self, file: FileContent, backup_reason: str) -> Policy:
        self._generation += 1
        return Policy(generation=self._generation, file=file, backup_reason=backup_reason)

    def _begin(self, policy: Policy) -> None:
        self.offered = policy
        if self._loader_up:
            self._parse(policy)

    def is_now_at(self, path: str) -> None:
        """The policy in force was made the file at `path`."""
        if self.in_force is not None:
            self.in_force = dataclasses.replace(self.in_force, file=dataclasses.replace(self.in_force.file, path=path))

    def names(self, text: str) -> bool:
        """Whether a policy that the loader has to do with holds `text`, a path or a host name, in quotes."""
        policies = [policy for policy in (self.offered, self.in_force) if policy is not None]
        files = [file for policy in policies for file in (policy.file, policy.file.templates) if file is not None]
        quoted = [quote + os.fsencode(text) + quote for quote in (b'"', b"'")]
        return any(one in file.content.reveal() for file in files for one in quoted)

    def enforce(self) -> None:
        """Has the offered policy, which was parsed, put in force."""
        if self.offered is not None and self.offered.parsed is not None and self._planned is None:
            self._send(m.EnforcePolicy(generation=self.offered.generation))

    def loader_came(self) -> None:
        """A loader said Hello: it knows nothing yet."""
        self._loader_up = True
        for policy in (self.in_force, self.offered):
            if policy is not None:
                self._parse(policy)

    def loader_went(self) -> None:
        """The loader is gone, and with it what it was parsing."""
        self._loader_up = False
        self._give_up(("the policy loader died while it loaded the policy",))

    def on_parsed(self, message: m.PolicyParsed) -> None:
        """The loader took a file."""
        if self.offered is not None and message.generation == self.offered.generation:
            self.offered = dataclasses.replace(self.offered, parsed=message)
            if self._planned is not None:
                self._finish_plan(message, message.warnings)
            elif self._may_enforce():
                self.enforce()
        elif self.in_force is not None and message.generation == self.in_force.generation:
            self._send(m.EnforcePolicy(generation=message.generation))

    def on_refused(self, message: m.PolicyRefused) -> None:
        """The loader refused a file."""
        if self.offered is not None and message.generation == self.offered.generation:
            self._give_up(message.errors)
        elif self.in_force is not None and message.generation == self.in_force.generation:
            self._not_restored(message.errors)

    def on_enforced(self, message: m.PolicyEnforced) -> None:
        """The agent has it in the kernel."""
        if self.offered is not None and message.generation == self.offered.generation:
            offered, self.offered, self.refused = self.offered, None, ()
            self.in_force = dataclasses.replace(offered, enforced_at=time.monotonic())
            warnings = offered.parsed.warnings if offered.parsed is not None else ()
            self._finish(True, warnings)
        self.loader_lacks_policy = False

    def on_not_enforced(self, message: m.PolicyNotEnforced) -> None:
        """The agent or the kernel said no."""
        if self.offered is not None and message.generation == self.offered.generation:
            self._give_up((message.reason,))
        elif self.in_force is not None and message.generation == self.in_force.generation:
            self._not_restored((message.reason,))

    def expire(self, generation: int) -> None:
        """The policy of this generation has had its time."""
        if self.offered is not None and self.offered.generation == generation:
            self._give_up(("the policy loader did not finish in time",))

    def _parse(self, policy: Policy) -> None:
        file, templates = policy.file, policy.file.templates
        message = m.ParsePolicy(
            generation=policy.generation, path=file.path, content=file.content, mode=file.mode, uid=file.uid
        )
        if templates is not None:
            message = dataclasses.replace(
                message,
                templates_path=templates.path,
                templates=templates.content,
                templates_mode=templates.mode,
                templates_uid=templates.uid,
            )
        self._send(message)

    def _give_up(self, reasons: tuple[str, ...]) -> None:
        if self._planned is not None:
            self._finish_plan(None, reasons)
        elif self.offered is not None:
            self.offered, self.refused = None, reasons
            self._finish(False, reasons)

    def _finish_plan(self, parsed: m.PolicyParsed | None, lines: tuple[str, ...]) -> None:
        planned, self._planned, self.offered = self._planned, None, None
        if planned is not None:
            planned(parsed, lines)

    def _not_restored(self, reasons: tuple[str, ...]) -> None:
        self.loader_lacks_policy = True
        for reason in reasons:
            log.error("the policy in force could not be given to the new policy loader: %s", reason)

    def _finish(self, in_force: bool, lines: tuple[str, ...]) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(in_force, lines)
