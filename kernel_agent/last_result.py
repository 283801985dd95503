"""What was worked out last, for when it is asked for again: a policy is checked, enforced, and looked after."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LastResult(Generic[T]):
    """The result for the arguments that came last. Equal arguments should share their parts: then they compare fast."""

    def __init__(self, work: Callable[..., T]) -> None:
        self._work = work
        self._known: tuple[tuple[object, ...], T] | None = None

    def of(self, *arguments: object) -> T:
        """As `work` has it."""
        if self._known is None or self._known[0] != arguments:
            self._known = (arguments, self._work(*arguments))
        return self._known[1]
