"""Several engines that look like one: datagrams are steered by SPI, and news go from each to the others.

As `ike_workers` has it: what is asked of a worker process is asked of one engine here, and the supervisor is a loop.
"""

from dataclasses import replace
from typing import Any

from ike_worker.ikev2.engine import Changes, Datagram, Endpoint, Engine
from ike_worker.ikev2.events import Event
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.memory import Memory
from ike_worker.ikev2.snapshot import IkeSaState
from ike_worker.ikev2.wire.message import FLAG_INITIATOR
from ipc.messages import Acquire, NegotiationRule, Peer, Sa, WorkerNews
from ipc.roles import SPI_STEER_BYTE

FLAG_RESPONSE = 0x20
IKE_SA_INIT = 34


class Engines:
    """An `Engine` to whom drives it, as far as the tests drive one."""

    def __init__(self, count: int, **surroundings: Any) -> None:
        self.all = [Engine(**surroundings) for _ in range(count)]
        for index, engine in enumerate(self.all):
            engine.set_place(index, count)
        self._now = 0.0
        self._rules: dict[int, NegotiationRule] = {}

    def of_spi(self, spi: bytes) -> Engine:
        """The one whose IKE SA has this SPI of ours."""
        return self.all[spi[SPI_STEER_BYTE] % len(self.all)]

    # ------------------------------------------------------------------ what goes to all

    def set_policy(self, peers: tuple[Peer, ...], rules: tuple[NegotiationRule, ...], now: float) -> None:
        self._rules = {rule.rule_id: rule for rule in rules}
        for engine in self.all:
            engine.set_policy(peers, rules, now)

    def start_rules(self, now: float) -> None:
        for engine in self.all:
            engine.start_rules(now)

    def initiate(self, rule_id: int, now: float, *, acquire: Acquire | None = None) -> None:
        """An acquire is told to all; what an operator wants is done by the one that has to do with the peer."""
        self._now = now
        for engine in self.all:
            if acquire is not None or engine.view(now).is_ours(self._rules[rule_id]):
                engine.initiate(rule_id, now, acquire=acquire)

    def handle_timer(self, now: float) -> None:
        self._now = now
        for engine in self.all:
            engine.handle_timer(now)

    def remember(self, what: Memory, now: float) -> None:
        for engine in self.all:
            engine.remember(what, now)

    # ------------------------------------------------------------------ what goes to one

    def receive_datagram(self, data: bytes, *, local: Endpoint, remote: Endpoint, now: float) -> None:
        self._now = now
        flags = data[19] if len(data) > 19 else 0
        is_first = len(data) > 19 and data[18] == IKE_SA_INIT and not flags & FLAG_RESPONSE
        own_spi = data[8:16] if flags & FLAG_INITIATOR and not is_first else data[:8]
        engine = self.of_spi(own_spi) if len(own_spi) == 8 else self.all[0]
        engine.receive_datagram(data, local=local, remote=remote, now=now)

    def rekey_child(self, spi_in: int, now: float) -> None:
        self._owner(spi_in).rekey_child(spi_in, now)

    def delete_child(self, spi_in: int, now: float) -> None:
        self._owner(spi_in).delete_child(spi_in, now)

    def child_expired(self, spi_in: int, hard: bool, now: float) -> None:
        self._owner(spi_in).child_expired(spi_in, hard, now)

    def rekey_ike_sa(self, own_spi: bytes, now: float) -> None:
        self.of_spi(own_spi).rekey_ike_sa(own_spi, now)

    def delete_ike_sa(self, own_spi: bytes, now: float) -> None:
        self.of_spi(own_spi).delete_ike_sa(own_spi, now)

    def snapshot(self, own_spi: bytes) -> IkeSaState:
        return self.of_spi(own_spi).snapshot(own_spi)

    def restore(self, state: IkeSaState, now: float) -> None:
        engine = self.of_spi(state.own_spi)
        engine.restore(state, now)
        told = engine._context.elsewhere.told.get(state.own_spi)
        for other in self.all:
            if other is not engine and told is not None:
                other.hear(WorkerNews(standing=(told,)), now)

    def _owner(self, spi_in: int) -> Engine:
        owners = [engine for engine in self.all if spi_in in engine._context.child_owners]
        return owners[0] if owners else self.all[0]

    # ------------------------------------------------------------------ what comes back

    def next_event(self) -> Event | None:
        for index, engine in enumerate(self.all):
            event = engine.next_event()
            if event is not None:
                token = getattr(event, "token", None)
                return event if token is None else replace(event, token=token * len(self.all) + index)  # type: ignore[call-arg,type-var]
        return None

    def __getattr__(self, name: str) -> Any:
        """Answers to questions, by the token that says whose one it was."""
        if name not in (
            "spi_allocated",
            "auth_computed",
            "auth_verified",
            "auth_refused",
            "sas_installed",
            "sas_refused",
        ):
            raise AttributeError(name)

        def answer(token: int, *arguments: Any) -> None:
            index = token % len(self.all)
            getattr(self.all[index], name)(token // len(self.all), *arguments)

        return answer

    def sas_used(self, usage: Any, now: float) -> None:
        for engine in self.all:
            engine.sas_used(usage, now)

    def datagrams_to_send(self) -> list[Datagram]:
        return [datagram for engine in self.all for datagram in engine.datagrams_to_send()]

    def get_timer(self) -> float | None:
        return min((due for engine in self.all if (due := engine.get_timer()) is not None), default=None)

    def take_changes(self) -> Changes:
        """Of all; news of each have gone to the others before this returns."""
        changed: dict[bytes, None] = {}
        gone: dict[bytes, None] = {}
        busy = True
        while busy:
            busy = False
            for engine in self.all:
                one = engine.take_changes()
                changed |= dict.fromkeys(one.changed)
                gone |= dict.fromkeys(one.gone)
                news = engine.take_news(one)
                for other in self.all if news is not None else ():
                    if other is not engine and news is not None:
                        other.hear(news, self._now)
                        busy = True
        standing = self.ike_sas
        return Changes(changed=tuple(spi for spi in changed if spi in standing), gone=tuple(gone))

    def take_new_failures(self) -> bool:
        told = [engine.take_new_failures() for engine in self.all]
        return any(told)

    def memory(self) -> Memory:
        return self.all[0].memory()

    def installed_sas(self) -> tuple[Sa, ...]:
        return tuple(sa for engine in self.all for sa in engine.installed_sas())

    @property
    def has_events(self) -> bool:
        """Whether there is something to carry out."""
        return any(engine._context.events or engine._context.outbox for engine in self.all)

    @property
    def ike_sas(self) -> dict[bytes, IkeSa]:
        """Of all."""
        return {spi: sa for engine in self.all for spi, sa in engine._context.ike_sas.items()}
