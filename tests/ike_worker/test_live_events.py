"""What becomes of SAs is told while somebody listens, in messages of bounded size."""

import pytest

from ike_worker.ikev2 import events as e
from ike_worker.live_events import MAX_EVENTS, LiveEvents
from ipc import wishes as w

CLOSED = e.ChildSaClosed(own_spi=bytes(8), rule="lan", spi_in=0x1234, reason="the peer deleted it")


def told(*happened: e.Event, watched: bool = True) -> list[w.LiveEvent]:
    sent: list[w.SasHappened] = []

    def send(message: object) -> None:
        assert isinstance(message, w.SasHappened)
        sent.append(message)

    live = LiveEvents(send)
    live.on_watch(w.WatchSas(on=watched), b"")
    for event in happened:
        live.note(event)
    live.flush()
    live.flush()
    return [event for message in sent for event in message.events]


def test_nothing_is_told_while_nobody_listens() -> None:
    assert told(CLOSED, watched=False) == []


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        (CLOSED, "child-sa-closed", "Child SA 00001234 of rule lan is closed: the peer deleted it"),
        (
            e.ChildSaEstablished(own_spi=bytes(8), rule="lan", spi_in=2, spi_out=3, rekeyed_spi_in=None),
            "child-sa-established",
            "Child SA 00000002 of rule lan is established",
        ),
        (
            e.ChildSaEstablished(own_spi=bytes(8), rule="lan", spi_in=2, spi_out=3, rekeyed_spi_in=1),
            "child-sa-rekeyed",
            "Child SA 00000002 of rule lan replaces 00000001",
        ),
        (
            e.IkeSaEstablished(own_spi=b"abcdefgh", peer="bob", replaces=b""),
            "ike-sa-established",
            "IKE SA 6162636465666768 with bob is established",
        ),
        (
            e.IkeSaEstablished(own_spi=b"abcdefgh", peer="bob", replaces=bytes(8)),
            "ike-sa-rekeyed",
            "IKE SA 6162636465666768 with bob replaces 0000000000000000",
        ),
        (
            e.IkeSaClosed(own_spi=bytes(8), peer="bob", reason="so"),
            "ike-sa-closed",
            "IKE SA 0000000000000000 with bob is closed: so",
        ),
        (
            e.NegotiationFailed(peer="bob", rule="lan", reason="so"),
            "negotiation-failed",
            "no SA with bob for rule lan: so",
        ),
        (
            e.IkeSaNotRekeyed(own_spi=bytes(8), reason="so"),
            "ike-sa-not-rekeyed",
            "IKE SA 0000000000000000 is not rekeyed: so",
        ),
    ],
)
def test_each_event_has_a_word_and_a_sentence(event: e.Event, kind: str, text: str) -> None:
    (one,) = told(event)
    assert (one.kind, one.text) == (kind, text)
    assert one.at > 1e9


def test_what_is_of_no_interest_is_not_told() -> None:
    assert told(e.DeleteSas(sas=()), e.AllClosed()) == []


def test_too_many_in_a_round_are_counted() -> None:
    events = told(*[CLOSED] * (MAX_EVENTS + 9))
    assert len(events) == MAX_EVENTS + 1
    assert (events[-1].kind, events[-1].text.split()[0]) == ("events-lost", "9")
