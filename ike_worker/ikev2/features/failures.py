"""The last failures of negotiations, for `ipsecctl why`: bounded for each peer and in all, and kept over a restart."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from ipc.wishes import Failure

PER_NAME = 8
MAX_OF_PEERS = 256
"""Of all peers together."""
MAX_STRANGERS = 64


class Failures:
    """By peer, and by the address of those who are no peer of the policy. A failure that comes again is counted."""

    def __init__(self) -> None:
        self._of_peers = _Kept(MAX_OF_PEERS)
        self._of_strangers = _Kept(MAX_STRANGERS)
        self.changed = False
        """Since somebody set it to False."""

    def add(self, failure: Failure) -> None:
        """It has just happened."""
        self.changed = True
        self._place(failure)

    def of(self, name: str) -> tuple[Failure, ...]:
        """Those of a peer, or of an address; the last one first."""
        return self._of_peers.of(name) or self._of_strangers.of(name)

    def keep_only(self, peers: Collection[str]) -> None:
        """Forgets those who are not in the policy any more."""
        self._of_peers.keep_only(peers)

    def __iter__(self) -> Iterator[Failure]:
        """All, the last one first."""
        return iter(sorted((*self._of_peers, *self._of_strangers), key=lambda one: one.at, reverse=True))

    def restore(self, failures: Iterable[Failure]) -> None:
        """Takes over what `__iter__` gave."""
        for failure in sorted(failures, key=lambda one: one.at):
            self._place(failure)

    def _place(self, failure: Failure) -> None:
        if failure.peer:
            self._of_peers.add(failure.peer, failure)
        else:
            self._of_strangers.add(_host(failure), failure)


class _Kept:
    """At most so many; who has failed longest ago is forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_name: OrderedDict[str, list[Failure]] = OrderedDict()
        self._count = 0

    def add(self, name: str, failure: Failure) -> None:
        failures = self._by_name.setdefault(name, [])
        self._by_name.move_to_end(name)
        last = failures[-1] if failures else None
        if last is not None and _is_again(last, failure):
            failures[-1] = replace(failure, times=last.times + failure.times, first_at=last.first_at)
            return
        failures.append(failure)
        self._count += 1
        if len(failures) > PER_NAME:
            del failures[0]
            self._count -= 1
        while self._count > self._most:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        name, failures = next(iter(self._by_name.items()))
        del failures[0]
        self._count -= 1
        if not failures:
            del self._by_name[name]

    def of(self, name: str) -> tuple[Failure, ...]:
        return tuple(reversed(self._by_name.get(name, ())))

    def keep_only(self, names: Collection[str]) -> None:
        for name in [name for name in self._by_name if name not in names]:
            self._count -= len(self._by_name.pop(name))

    def __iter__(self) -> Iterator[Failure]:
        return (failure for failures in self._by_name.values() for failure in failures)


def _host(failure: Failure) -> str:
    return failure.remote.rpartition(":")[0].strip("[]")


def _is_again(last: Failure, failure: Failure) -> bool:
    """Whether it is the same once more, perhaps from another port."""

    def what(one: Failure) -> Failure:
        return replace(
            one, at=0.0, first_at=0.0, times=1, remote=_host(one), sentence=one.sentence.replace(one.remote, "")
        )

    return what(last) == what(failure)
