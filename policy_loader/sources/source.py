"""Where a policy comes from. A file is one source; a cluster, say, would bring a signed one in another module here."""

from typing import Protocol

from ipc.types import Secret


class PolicySource(Protocol):
    """A policy's text, not looked at yet. Whoever has it judges first whether it may be believed at all."""

    @property
    def path(self) -> str:
        """What complaints call it."""
        ...

    @property
    def content(self) -> Secret:
        """Its bytes."""
        ...

    def complaints(self) -> tuple[str, ...]:
        """Why it must not be believed, a sentence each; empty if it may."""
        ...
