"""Who listens is told, in order; who is slow loses events and is told how many; nobody is waited for."""

from ipc import wishes as w
from ipc.messages import RULES_PER_MESSAGE
from supervisor.monitor import MAX_LISTENERS, MAX_WAITING, Monitor


class Hall:
    """A monitor, and what its listeners have got."""

    def __init__(self) -> None:
        self.got: dict[bytes, list[w.MonitorEvents]] = {}
        self.gone: set[bytes] = set()
        self.watched: list[bool] = []
        self.monitor = Monitor(self._send, self.watched.append)

    def _send(self, peer: bytes, message: object) -> bool:
        assert isinstance(message, w.MonitorEvents)
        if peer in self.gone:
            return False
        self.got.setdefault(peer, []).append(message)
        return True

    def listen(self, peer: bytes) -> None:
        self.monitor.on_listen(w.MonitorCommand(), peer)

    def take(self, peer: bytes) -> None:
        self.monitor.on_taken(w.MonitorTaken(), peer)

    def texts(self, peer: bytes) -> list[str]:
        return [event.text for batch in self.got[peer] for event in batch.events]


def test_a_listener_is_told_in_order_and_gets_the_next_when_it_has_taken_those_before() -> None:
    hall = Hall()
    hall.listen(b"a")
    for text in ("one", "two", "three"):
        hall.monitor.say("role-up", text)
    assert hall.texts(b"a") == ["listening"]
    hall.take(b"a")
    assert hall.texts(b"a") == ["listening", "one", "two", "three"]
    assert [len(batch.events) for batch in hall.got[b"a"]] == [1, 3]
    hall.take(b"a")
    hall.monitor.say("role-up", "four")
    assert hall.texts(b"a")[-1] == "four"


def test_a_slow_listener_loses_the_oldest_and_is_told_how_many_and_others_lose_nothing() -> None:
    hall = Hall()
    hall.listen(b"slow")
    hall.listen(b"quick")
    hall.take(b"quick")
    for number in range(MAX_WAITING + 7):
        hall.monitor.say("role-up", str(number))
        hall.take(b"quick")
    assert hall.texts(b"quick")[1:] == [str(number) for number in range(MAX_WAITING + 7)]
    assert all(batch.lost == 0 for batch in hall.got[b"quick"])
    hall.take(b"slow")
    batch = hall.got[b"slow"][-1]
    assert (batch.lost, batch.events[0].text, len(batch.events)) == (7, "7", RULES_PER_MESSAGE)
    hall.take(b"slow")
    assert hall.got[b"slow"][-1].lost == 0


def test_the_worker_is_asked_only_while_somebody_listens() -> None:
    hall = Hall()
    hall.monitor.say("role-up", "nobody hears this")
    hall.monitor.worker_came()
    assert hall.watched == []
    hall.listen(b"a")
    hall.monitor.worker_came()
    assert hall.watched == [True, True]
    hall.take(b"a")
    hall.gone.add(b"a")
    hall.monitor.say("role-up", "one")
    assert hall.watched == [True, True, False]
    assert hall.monitor.listeners == 0
    hall.take(b"a")


def test_of_too_many_listeners_the_first_goes() -> None:
    hall = Hall()
    for number in range(MAX_LISTENERS + 1):
        hall.listen(bytes([number]))
    assert hall.monitor.listeners == MAX_LISTENERS
    hall.take(bytes([0]))
    hall.monitor.say("role-up", "one")
    assert hall.texts(bytes([0])) == ["listening"]
