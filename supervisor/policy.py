"""Which policy is in force, and the way of a new one: offered, parsed by the loader, enforced by the agent.

The supervisor never reads what stands in an SPD file. It keeps the content of the one in force, so that a loader that
was started again gets just that, whatever has become of the file.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from ipc import messages as m
from supervisor.files import FileContent

log = logging.getLogger(__name__)

Send = Callable[[object], bool]
Finished = Callable[[bool, tuple[str, ...]], None]
"""Called once with whether the offered policy is in force now, and what there is to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy file on its way or in force."""

    generation: int
    file: FileContent
    parsed: m.PolicyParsed | None = None
    enforced_at: float = 0.0
    """Monotonic."""


class PolicyKeeper:
    """The policy in force and the one that is offered. `send` speaks to the loader, and says whether it could.

    `may_enforce` tells whether the agent has a data path: before, a parsed policy waits for `enforce`.
    """

    def __init__(self, send: Send, may_enforce: Callable[[], bool]) -> None:
        self.in_force: Policy | None = None
        self.offered: Policy | None = None
        self.refused: tuple[str, ...] = ()
        """Why the last file offered is not in force; empty if it is."""
        self.loader_lacks_policy = False
        """A loader that was started again could not take the policy in force."""
        self._send = send
        self._may_enforce = may_enforce
        self._finished: Finished | None = None
        self._loader_up = False
        self._generation = 0

    def offer(self, file: FileContent, finished: Finished) -> None:
        """Has `file` parsed and then enforced; `finished` is called in the end. One at a time."""
        if self.offered is not None:
            finished(False, ("another policy is being loaded",))
            return
        self._generation += 1
        self.offered = Policy(generation=self._generation, file=file)
        self._finished = finished
        if self._loader_up:
            self._parse(self.offered)

    def names_file(self, path: str) -> bool:
        """Whether a policy that the loader has to do with names the file `path`, as a string of its own."""
        policies = [policy for policy in (self.offered, self.in_force) if policy is not None]
        quoted = [quote + os.fsencode(path) + quote for quote in (b'"', b"'")]
        return any(text in policy.file.content.reveal() for policy in policies for text in quoted)

    def enforce(self) -> None:
        """Has the offered policy, which was parsed, put in force."""
        if self.offered is not None and self.offered.parsed is not None:
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
            self.offered = Policy(generation=message.generation, file=self.offered.file, parsed=message)
            if self._may_enforce():
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
            self.in_force = Policy(
                generation=offered.generation, file=offered.file, parsed=offered.parsed, enforced_at=time.monotonic()
            )
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
        file = policy.file
        self._send(
            m.ParsePolicy(
                generation=policy.generation, path=file.path, content=file.content, mode=file.mode, uid=file.uid
            )
        )

    def _give_up(self, reasons: tuple[str, ...]) -> None:
        if self.offered is not None:
            self.offered, self.refused = None, reasons
            self._finish(False, reasons)

    def _not_restored(self, reasons: tuple[str, ...]) -> None:
        self.loader_lacks_policy = True
        for reason in reasons:
            log.error("the policy in force could not be given to the new policy loader: %s", reason)

    def _finish(self, in_force: bool, lines: tuple[str, ...]) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(in_force, lines)
