"""How long a role that died stays dead."""

from supervisor.backoff import Backoff


def test_the_first_restart_is_at_once_and_later_ones_wait_longer_up_to_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.next_delay_s(0.5) for _ in range(10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_minute_of_life_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay_s(1.0)
    assert backoff.next_delay_s(59.9) == 16
    assert backoff.next_delay_s(60.0) == 0
    assert backoff.next_delay_s(1.0) == 1


def test_a_thousand_deaths_still_wait_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.next_delay_s(0.0) for _ in range(1000)][-1] == 60
