"""What becomes of SAs, told live to whoever listens (`ipsecctl monitor`): nothing is made or sent while nobody does."""

import time
from collections.abc import Callable

from ike_worker.ikev2 import events
from ipc import wishes as w
from ipc.messages import RULES_PER_MESSAGE

MAX_EVENTS = 4 * RULES_PER_MESSAGE
"""Of one round of the loop; more are counted, and told of by their number."""


class LiveEvents:
    """Gathers the events of a round, and sends them in messages of bounded size."""

    def __init__(self, send: Callable[[object], object]) -> None:
        self._send = send
        self._watched = False
        self._gathered: list[w.LiveEvent] = []
        self._lost = 0

    def on_watch(self, message: w.WatchSas, _peer: bytes) -> None:
        """Somebody listens, or nobody does any more."""
        self._watched = message.on

    def note(self, event: events.Event) -> None:
        """This has happened."""
        if not self._watched:
            return
        told = _told(event)
        if told is not None and len(self._gathered) < MAX_EVENTS:
            self._gathered.append(told)
        elif told is not None:
            self._lost += 1

    def flush(self) -> None:
        """The round is over."""
        if not self._gathered:
            return
        if self._lost:
            text = f"{self._lost} events of the IKE worker came too fast to be told"
            self._gathered.append(w.LiveEvent(at=time.time(), kind="events-lost", text=text))
        for start in range(0, len(self._gathered), RULES_PER_MESSAGE):
            self._send(w.SasHappened(events=tuple(self._gathered[start : start + RULES_PER_MESSAGE])))
        self._gathered.clear()
        self._lost = 0


def _told(event: events.Event) -> w.LiveEvent | None:
    """`event` for people; None for what is no news to them."""
    now = time.time()
    match event:
        case events.IkeSaEstablished():
            spi = event.own_spi.hex()
            if event.replaces:
                kind, text = "ike-sa-rekeyed", f"IKE SA {spi} with {event.peer} replaces {event.replaces.hex()}"
            else:
                kind, text = "ike-sa-established", f"IKE SA {spi} with {event.peer} is established"
            return w.LiveEvent(at=now, kind=kind, text=text, peer=event.peer, spi=spi)
        case events.IkeSaClosed():
            spi = event.own_spi.hex()
            text = f"IKE SA {spi} with {event.peer} is closed: {event.reason}"
            return w.LiveEvent(at=now, kind="ike-sa-closed", text=text, peer=event.peer, spi=spi, reason=event.reason)
        case events.ChildSaEstablished():
            spi = f"{event.spi_in:08x}"
            if event.rekeyed_spi_in:
                kind = "child-sa-rekeyed"
                text = f"Child SA {spi} of rule {event.rule} replaces {event.rekeyed_spi_in:08x}"
            else:
                kind, text = "child-sa-established", f"Child SA {spi} of rule {event.rule} is established"
            return w.LiveEvent(at=now, kind=kind, text=text, rule=event.rule, spi=spi)
        case events.ChildSaClosed():
            spi = f"{event.spi_in:08x}"
            text = f"Child SA {spi} of rule {event.rule} is closed: {event.reason}"
            return w.LiveEvent(at=now, kind="child-sa-closed", text=text, rule=event.rule, spi=spi, reason=event.reason)
        case events.NegotiationFailed():
            of_rule = f" for rule {event.rule}" if event.rule else ""
            text = f"no SA with {event.peer}{of_rule}: {event.reason}"
            return w.LiveEvent(
                at=now,
                kind="negotiation-failed",
                text=text,
                peer=event.peer,
                rule=event.rule,
                reason=event.reason,
            )
        case events.IkeSaNotRekeyed():
            spi = event.own_spi.hex()
            text = f"IKE SA {spi} is not rekeyed: {event.reason}"
            return w.LiveEvent(at=now, kind="ike-sa-not-rekeyed", text=text, spi=spi, reason=event.reason)
    return None
