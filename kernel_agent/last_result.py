"""What was worked out last, for when it is asked for again: a policy is checked, enforced, and looked after."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

H = TypeVar("H", bound=Hashable)
K = TypeVar("K")
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


class LastOfEach(Generic[K, T]):
    """The results for the items that came last: only for new ones there is work. Items are told apart as objects."""

    def __init__(self, work: Callable[..., T]) -> None:
        self._work = work
        self._context: tuple[object, ...] = ()
        self._known: dict[int, tuple[K, T]] = {}

    def of(self, items: Iterable[K], *context: object) -> tuple[T, ...]:
        """As `work(item, *context)` has it, for each."""
        known = self._known if context == self._context else {}
        entries = [known.get(id(item)) or (item, self._work(item, *context)) for item in items]
        self._context, self._known = context, {id(entry[0]): entry for entry in entries}
        return tuple([entry[1] for entry in entries])


class Remembered:
    """Results of any work on single objects, as long as each round asks for them again."""

    def __init__(self) -> None:
        self._before: dict[tuple[Hashable, ...], tuple[object, Any]] = {}
        self._now: dict[tuple[Hashable, ...], tuple[object, Any]] = {}

    def of(self, work: Callable[..., T], item: object, *context: Hashable) -> T:
        """As `work(item, *context)` has it. The item is told apart as an object, the rest by value."""
        key = (work, id(item), *context)
        known = self._now.get(key) or self._before.get(key) or (item, work(item, *context))
        self._now[key] = known
        result: T = known[1]
        return result

    def end_round(self) -> None:
        """What was not asked for since the last time is forgotten."""
        self._before, self._now = self._now, {}


class LastOfEqual(Generic[H, T]):
    """As `LastOfEach`, for items that come anew each time, as the kernel's lists do: they are told apart by value."""

    def __init__(self, work: Callable[[H], T]) -> None:
        self._work = work
        self._items: list[H] = []
        self._known: dict[H, T] = {}
        self._results: tuple[T, ...] = ()

    def of(self, items: list[H]) -> tuple[T, ...]:
        """As `work(item)` has it, for each; the same object for a list that is equal to the last one."""
        if items != self._items:
            known, work = self._known, self._work
            self._known = {item: known[item] if item in known else work(item) for item in items}
            self._items, self._results = items, tuple([self._known[item] for item in items])
        return self._results
