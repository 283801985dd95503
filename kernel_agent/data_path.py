"""What the agent wants of a data path: eleven operations, with several back ends.

`xfrm.xfrm_path` has the kernel do ESP, `userspace.userspace_path` a process of ours, and `memory` nobody, for tests.
An answer that may take time comes to a callback: with an empty reason where it worked. Callbacks come in the order of
the calls.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from ipc.messages import Acquire, Expire, KernelRule, PeerMoved, Sa, SaName, Usage
from ipc.types import DataPathKind, Unmatched
from ipc.value import value
from kernel_agent.xfrm.messages import InstalledSa

Done = Callable[[str], None]
"""Called with why it did not work, in one sentence; empty where it did."""
Lost = Callable[[SaName, str], None]
"""Called with an SA that can't go on, and why."""
Answered = Callable[[tuple[Usage, ...]], None]


class DataPathError(Exception):
    """The data path can't do what it was asked; its text is one clear sentence. Nothing has changed."""


@value
class SecurityPolicy:
    """A whole SPD, as the kernel must enforce it. Rules in their order."""

    generation: int
    interfaces: tuple[str, ...]
    unmatched: Unmatched
    rules: tuple[KernelRule, ...]
    manual_sas: tuple[Sa, ...] = ()
    """Those of the rules with fixed keys."""


@value
class Listener:
    """Where a data path says what happens by itself."""

    on_acquire: Callable[[Acquire], None]
    on_expire: Callable[[Expire], None]
    on_peer_moved: Callable[[PeerMoved], None]


class DataPath(Protocol):
    """A back end. It survives its agent: a new agent starts with what is installed."""

    @property
    def kind(self) -> DataPathKind:
        """Which one it is."""

    def start(self, listener: Listener) -> None:
        """Begins to listen, and takes over what is installed; DataPathError if it can't work here."""

    def install_policy(self, policy: SecurityPolicy) -> None:
        """Enforces `policy` in place of the present one, all or nothing; DataPathError with nothing changed."""

    def check_policy(self, policy: SecurityPolicy) -> None:
        """Whether it could be enforced, with nothing changed; DataPathError if not. Only what is new costs time."""

    def drift(self, policy: SecurityPolicy) -> tuple[str, ...]:
        """How the kernel's policies differ from `policy`, installed last, in words; a look that costs little."""

    def installed_sas(self) -> tuple[InstalledSa, ...]:
        """The SAs of ours that exist."""

    def add_sas(self, sas: tuple[Sa, ...], done: Done) -> None:
        """Installs all or none, in their order."""

    def restore_sas(self, sas: tuple[Sa, ...], lost: Lost) -> None:
        """Adds those that are missing, each for itself. Their sequence numbers and replay windows must go on."""

    def delete_sas(self, names: tuple[SaName, ...], done: Done) -> None:
        """Deletes; one that is gone counts as deleted."""

    def query_sas(self, names: tuple[SaName, ...], answered: Answered) -> None:
        """Traffic of those that exist."""

    def leave(self) -> None:
        """Stops listening, for another data path to follow. What is installed stays."""


def missing_interfaces(wanted: Iterable[str], present: Iterable[str]) -> str:
    """Why a policy for interfaces that do not exist can't be enforced; empty if they all do."""
    there = sorted(present)
    for name in wanted:
        if name not in there:
            return f"interface {name} does not exist; there are: {', '.join(there)}"
    return ""
