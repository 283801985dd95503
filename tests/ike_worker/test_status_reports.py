"""What the worker tells the supervisor of its IKE SAs."""

from types import SimpleNamespace

from ike_worker.worker import Worker
from ipc import messages as m
from tests.ike_worker.ikev2.two_sides import World


def test_an_ike_sa_that_ends_while_a_report_is_due_costs_no_report_of_the_others() -> None:
    world = World()
    world.connect()
    (standing,) = world.alice.ike_spis
    sent: list[m.TunnelsChanged] = []
    worker = object.__new__(Worker)
    worker._engine = world.alice.engine
    worker._status_changed, worker._status_gone = {b"ended!!!", standing}, set()
    worker._supervisor = SimpleNamespace(try_send=sent.append)  # type: ignore[assignment]
    worker._rule_reports = SimpleNamespace(take=tuple)  # type: ignore[assignment]
    worker._report_status()
    assert [[one.spi_i for one in message.changed] for message in sent] == [[standing]]
